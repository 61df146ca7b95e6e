/* SPDX-License-Identifier: MIT */
/* A certificate that the lab's servers sign themselves: for 127.0.0.1 and localhost, for a week. */
#ifndef SERVER_LAB_SELF_SIGNED_H
#define SERVER_LAB_SELF_SIGNED_H

#include <stddef.h>

/* Write both files, the key readable by its owner alone. Returns 0, or -1 with a sentence in why. */
int self_signed(const char *certificate, const char *key, char *why, size_t why_size);

#endif
