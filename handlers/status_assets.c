/* SPDX-License-Identifier: MIT */
/* The page's style and script, as they lie beside this file, and the policy that lets a browser obey
 * these two and nothing else: they are part of the page, so it needs their hashes, which are made of
 * the very bytes that are sent. handlers/module.mk knows that this object depends on them. */
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "handlers/status_priv.h"

#define ASSET(name, file)                                                                          \
    __asm__(".section .rodata\n"                                                                   \
            ".global " #name "\n" #name ":\n"                                                      \
            ".incbin \"" file "\"\n"                                                               \
            ".byte 0\n"                                                                            \
            ".previous\n")

ASSET(status_css, "handlers/status.css");
ASSET(status_js, "handlers/status.js");

enum { HASH_BYTES = 32, HASH_TEXT = 64, POLICY_TEXT = 400 };

/* Base64 of its SHA-256. */
static int hash_of(const char *text, unsigned char out[HASH_TEXT])
{
    unsigned char hash[HASH_BYTES];
    if (EVP_Digest(text, strlen(text), hash, NULL, EVP_sha256(), NULL) != 1)
        return -1;
    EVP_EncodeBlock(out, hash, HASH_BYTES);
    return 0;
}

const char *status_policy(void)
{
    static char policy[POLICY_TEXT];
    unsigned char script[HASH_TEXT], style[HASH_TEXT];
    if (policy[0])
        return policy;
    if (hash_of(status_js, script) != 0 || hash_of(status_css, style) != 0)
        return NULL;
    snprintf(policy, sizeof policy,
             "default-src 'none'; script-src 'sha256-%s'; style-src 'sha256-%s'; connect-src "
             "'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
             script, style);
    return policy;
}
