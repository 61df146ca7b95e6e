/* SPDX-License-Identifier: MIT */
#include "server/lab/number.h"

#include <stdio.h>
#include <stdlib.h>

bool lab_number(const char *command, const char *name, const char *text, double low, double high,
                double *to)
{
    char *end;
    *to = strtod(text, &end);
    if (end != text && *end == '\0' && *to >= low && *to <= high)
        return true;
    fprintf(stderr, "modus %s: --%s wants a number from %g to %g, not \"%s\"\n", command, name, low,
            high, text);
    return false;
}
