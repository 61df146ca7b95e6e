/* SPDX-License-Identifier: MIT */
#include "server/lab/number.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static bool read_number(const char *command, const char *name, const char *text, double low,
                        double high, bool whole, double *to)
{
    char *end;
    *to = strtod(text, &end);
    if (end != text && *end == '\0' && *to >= low && *to <= high && (!whole || floor(*to) == *to))
        return true;
    fprintf(stderr, "modus %s: --%s wants a %snumber from %.15g to %.15g, not \"%s\"\n", command,
            name, whole ? "whole " : "", low, high, text);
    return false;
}

bool lab_number(const char *command, const char *name, const char *text, double low, double high,
                double *to)
{
    return read_number(command, name, text, low, high, false, to);
}

bool lab_whole_number(const char *command, const char *name, const char *text, double low,
                      double high, double *to)
{
    return read_number(command, name, text, low, high, true, to);
}
