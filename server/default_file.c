/* SPDX-License-Identifier: MIT */
/* Where the configuration is: see server/default_file.h. */
#include "server/default_file.h"

#include <unistd.h>

const char default_file_here[] = "conf/modus.conf";
const char default_file_installed[] = MODUS_PREFIX "/etc/modus/modus.conf";

const char *default_file(void)
{
    return access(default_file_here, F_OK) == 0        ? default_file_here
           : access(default_file_installed, F_OK) == 0 ? default_file_installed
                                                       : NULL;
}
