/* SPDX-License-Identifier: MIT */
/*
 * modus_main (thread.h): the frame around a program's main function. It knows both threads and
 * processes, which know nothing of it.
 */
#include "concurrency/process.h"
#include "concurrency/thread.h"

#include <stdlib.h>

_Noreturn void modus_main(int (*main)(int argc, char **argv), int argc, char **argv)
{
    modus_process_child(argc, argv);
    int status = main(argc, argv);

    modus_thread_join_all();
    modus_process_join_all();
    exit(status);
}
