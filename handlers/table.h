/* SPDX-License-Identifier: MIT */
/* The list of handlers, a line each; handlers/table.c makes the table of it. No include guard: it
 * is included once for the declarations and once for the table. */
#ifndef HANDLER /* compiled alone by `make headers` */
#define HANDLER(name)
#endif
HANDLER(text)
HANDLER(static)
HANDLER(echo)
HANDLER(sleep)
HANDLER(block)
HANDLER(spin)
HANDLER(status)
