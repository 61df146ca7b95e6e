/* SPDX-License-Identifier: MIT */
/* Which numbers the results' JSON has, said once for who writes it and who reads it. Their names
 * there are the fields' names.
 */
#ifndef SERVER_LAB_RESULTS_PRIV_H
#define SERVER_LAB_RESULTS_PRIV_H

#include <stddef.h>

#include "server/lab/results.h"

enum { LAB_JSON_VERSION = 1 };

/* A field: size is that of a text, else 0. A table ends with no name. */
struct lab_field {
    const char *name;
    size_t offset, size;
};

extern const struct lab_field lab_round_numbers[]; /* double, in struct lab_round */
extern const struct lab_field lab_error_numbers[]; /* uint64_t, in struct lab_errors */
extern const struct lab_field lab_machine_texts[]; /* char [], in struct lab_machine */

#endif
