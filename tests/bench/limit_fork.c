/* SPDX-License-Identifier: MIT */
/* limit_fork [PORT]: what a process a connection can do at best. accept, fork; the child receives
 * one request, sends one answer, closes and leaves; the kernel reaps it.
 *
 * It links the libraries that modus links (link with --no-as-needed) and touches one symbol of
 * each: most of what fork costs is copying page tables, so without them it would be another limit.
 */
#include "limit.h"

#include <confuse.h>
#include <openssl/crypto.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

static const char body[] = "Hello, World!";

static void touch_libraries(void)
{
    if (uv_version() == 0 || OpenSSL_version_num() == 0 || TLS_server_method() == NULL ||
        confuse_version[0] == '\0')
        limit_die("libraries");
}

static _Noreturn void serve(int fd, const char *answer, size_t length)
{
    char request[4096];
    if (recv(fd, request, sizeof request, 0) > 0)
        (void)!send(fd, answer, length, MSG_NOSIGNAL);
    close(fd);
    _exit(0);
}

int main(int argc, char **argv)
{
    char answer[512];
    size_t length = limit_head(answer, sizeof answer - sizeof body, sizeof body - 1, true);
    memcpy(answer + length, body, sizeof body - 1);
    length += sizeof body - 1;

    touch_libraries();
    struct sigaction reap = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT};
    if (sigaction(SIGCHLD, &reap, NULL) < 0)
        limit_die("sigaction");
    int listener = limit_listen(argc > 1 ? argv[1] : "0", 0);
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            continue;
        if (fork() == 0)
            serve(fd, answer, length);
        close(fd);
    }
}
