/* SPDX-License-Identifier: MIT */
/* Figures as people read them. */
#include "server/lab/figures.h"

#include <math.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static char *put(char text[LAB_FIGURE], double n, const char *unit)
{
    snprintf(text, LAB_FIGURE, "%s%s", lab_say_number((char[LAB_FIGURE]){0}, n), unit);
    return text;
}

static bool is_known(double n)
{
    return isfinite(n) && n >= 0;
}

static char *unknown(char text[LAB_FIGURE])
{
    return strcpy(text, "?");
}

/* From 10,000 on in groups of three. */
static char *put_grouped(char text[LAB_FIGURE], double n)
{
    char digits[LAB_FIGURE];
    int len = snprintf(digits, sizeof digits, "%.0f", n), to = 0;
    for (int i = 0; i < len; i++) {
        if (len > 4 && i && (len - i) % 3 == 0)
            text[to++] = ',';
        text[to++] = digits[i];
    }
    text[to] = '\0';
    return text;
}

char *lab_say_number(char text[LAB_FIGURE], double n)
{
    if (!is_known(n))
        return unknown(text);
    if (n >= 1e12) {
        snprintf(text, LAB_FIGURE, "%.3g", n);
        return text;
    }
    if (n >= 999.5) {
        double unit = pow(10, floor(log10(n)) - 2);
        return put_grouped(text, round(n / unit) * unit);
    }
    snprintf(text, LAB_FIGURE, "%.*f", n < 9.995 ? 2 : n < 99.95 ? 1 : 0, n);
    return n == 0 ? strcpy(text, "0") : text;
}

char *lab_say_whole(char text[LAB_FIGURE], double n)
{
    return is_known(n) && n < 1e12 && n == floor(n) ? put_grouped(text, n)
                                                    : lab_say_number(text, n);
}

char *lab_say_us(char text[LAB_FIGURE], double us)
{
    if (!is_known(us))
        return unknown(text);
    if (us < 999.5)
        return put(text, us, LAB_NBSP "µs");
    return us < 999500 ? put(text, us / 1e3, LAB_NBSP "ms") : put(text, us / 1e6, LAB_NBSP "s");
}

char *lab_say_kib(char text[LAB_FIGURE], double kib)
{
    if (!is_known(kib))
        return unknown(text);
    if (kib < 1) {
        snprintf(text, LAB_FIGURE, "%.0f" LAB_NBSP "B", kib * 1024);
        return text;
    }
    if (kib < 1024)
        return put(text, kib, LAB_NBSP "KiB");
    return kib < 1 << 20 ? put(text, kib / 1024, LAB_NBSP "MiB")
                         : put(text, kib / (1 << 20), LAB_NBSP "GiB");
}

char *lab_say_share(char text[LAB_FIGURE], double share)
{
    if (!is_known(share))
        return unknown(text);
    /* What is not all of it is not said to be. */
    double percent = share < 1 && share >= 0.995 ? 99 : share * 100;
    if (percent >= 10 || percent == 0)
        snprintf(text, LAB_FIGURE, "%.0f" LAB_NBSP "%%", percent);
    else
        snprintf(text, LAB_FIGURE, percent < 0.095 ? "%.2f" LAB_NBSP "%%" : "%.1f" LAB_NBSP "%%",
                 percent);
    return text;
}

char *lab_say_times(char text[LAB_FIGURE], double ratio)
{
    if (!is_known(ratio))
        return unknown(text);
    snprintf(text, LAB_FIGURE, "%.*f times", ratio < 1.095 ? 2 : ratio < 9.95 ? 1 : 0, ratio);
    return text;
}

char *lab_say_count(char *text, size_t size, double n, const char *one, const char *many)
{
    char number[LAB_FIGURE];
    snprintf(text, size, "%s %s", lab_say_whole(number, n), n == 1 ? one : many);
    return text;
}

void lab_add(char *text, size_t size, const char *format, ...)
{
    size_t len = strlen(text);
    va_list args;
    va_start(args, format);
    vsnprintf(text + len, size - len, format, args);
    va_end(args);
}

void lab_add_listed(char *text, size_t size, size_t place, size_t count, const char *last,
                    const char *name)
{
    if (place && place + 1 == count)
        lab_add(text, size, " %s ", last);
    else if (place)
        lab_add(text, size, ", ");
    lab_add(text, size, "%s", name);
}
