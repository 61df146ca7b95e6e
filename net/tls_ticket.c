/* SPDX-License-Identifier: MIT */
/* The keys of a listener's session tickets: a session resumes in whichever process answers, and
 * keys turn. See net/tls_priv.h for the other parts of TLS.
 *
 * Ticket keys live in memory that all processes of a listener share, and any of them may be killed
 * at any instruction. So there is no lock and no sequence count in it: a key is a row of 64-bit
 * words, each 40 random bits under a tag that says to which turn it belongs. Whoever needs the key
 * of this turn sets, by compare-and-swap, the words that don't bear its tag yet, and takes the
 * words that somebody else has set. All see the same key, whoever set which words; a half-set key
 * is completed by the next who needs it; nobody ever waits. The two rows serve odd and even turns,
 * so that starting a turn wipes the key of the turn before last: stolen memory opens no older
 * ticket.
 */
#include "net/tls_priv.h"

#include <assert.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

enum {
    TICKET_WORDS = 16, /* 16 x 5 bytes hold a struct ticket_key */
    TICKET_WORD_BYTES = 5,
    TICKET_TAG_SHIFT = 8 * TICKET_WORD_BYTES,
    TICKET_TRIES = 4,
};

struct ticket_key {
    unsigned char name[16]; /* goes with the ticket, in the clear */
    unsigned char aes[32];
    unsigned char mac[32];
};

struct ticket_row {
    _Alignas(64) _Atomic uint64_t words[TICKET_WORDS]; /* tag above, 0: never set */
};

/* What tls_shared_size() speaks of. All zero: no key was needed yet. */
struct tls_shared {
    _Alignas(64) _Atomic uint64_t extra_turns; /* tls_shared_rotate() */
    struct ticket_row rows[2];
};

static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "ticket keys need 64-bit atomics between processes");
static_assert(sizeof(struct ticket_key) <= TICKET_WORDS * TICKET_WORD_BYTES,
              "a row must hold a key");

size_t tls_shared_size(void)
{
    return sizeof(struct tls_shared);
}

struct tls_shared *tls_shared_new(void)
{
    struct tls_shared *keys = aligned_alloc(64, sizeof(*keys));
    if (keys != NULL)
        memset(keys, 0, sizeof(*keys));
    return keys;
}

void tls_shared_free(struct tls_shared *keys)
{
    if (keys != NULL)
        OPENSSL_cleanse(keys, sizeof(*keys));
    free(keys);
}

void tls_shared_rotate(void *shared)
{
    struct tls_shared *keys = shared;
    atomic_fetch_add(&keys->extra_turns, 1);
}

/* Time since boot, suspended time included: the same for all processes, and it never jumps. */
static uint64_t ticket_turn(struct tls_shared *keys)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec / TLS_TICKET_TURN_S + 1 + atomic_load(&keys->extra_turns);
}

/* 23 bits of the turn, and a bit that tells a set word from a zeroed one. Turns are told apart
 * while they are less than 2^22 apart: 3800 years, or as many calls of tls_shared_rotate(). */
static uint64_t ticket_tag(uint64_t turn)
{
    return 0x800000 | (turn & 0x7fffff);
}

/* May a word with tag have give way to one with tag want? Only forwards: a process that slept
 * through a turn must not undo it. */
static bool ticket_tag_is_older(uint64_t have, uint64_t want)
{
    uint64_t ahead = (want - have) & 0x7fffff;
    return have == 0 || (ahead != 0 && ahead < 0x400000);
}

/* The key of a turn, if it is there whole. */
static bool ticket_key_load(struct tls_shared *keys, uint64_t turn, struct ticket_key *key)
{
    struct ticket_row *row = &keys->rows[turn & 1];
    unsigned char bytes[TICKET_WORDS * TICKET_WORD_BYTES];
    bool whole = true;
    for (int i = 0; i < TICKET_WORDS; i++) {
        uint64_t word = atomic_load_explicit(&row->words[i], memory_order_relaxed);
        whole = whole && word >> TICKET_TAG_SHIFT == ticket_tag(turn);
        for (int b = 0; b < TICKET_WORD_BYTES; b++)
            bytes[i * TICKET_WORD_BYTES + b] = (unsigned char)(word >> 8 * b);
    }
    if (whole)
        memcpy(key, bytes, sizeof(*key));
    OPENSSL_cleanse(bytes, sizeof(bytes));
    return whole;
}

/* Set the words that a turn's key still lacks. */
static void ticket_key_fill(struct tls_shared *keys, uint64_t turn, const uint64_t *fresh)
{
    struct ticket_row *row = &keys->rows[turn & 1];
    uint64_t tag = ticket_tag(turn);
    for (int i = 0; i < TICKET_WORDS; i++) {
        uint64_t have = atomic_load_explicit(&row->words[i], memory_order_relaxed);
        while (ticket_tag_is_older(have >> TICKET_TAG_SHIFT, tag)) {
            uint64_t want = tag << TICKET_TAG_SHIFT | fresh[i] >> (64 - TICKET_TAG_SHIFT);
            if (atomic_compare_exchange_weak(&row->words[i], &have, want))
                break;
        }
    }
}

/* The key for new tickets. Fails only without randomness, or when turns race past us. */
static bool ticket_key_current(struct tls_shared *keys, struct ticket_key *key)
{
    for (int i = 0; i < TICKET_TRIES; i++) {
        uint64_t turn = ticket_turn(keys), fresh[TICKET_WORDS];
        if (ticket_key_load(keys, turn, key))
            return true;
        if (RAND_priv_bytes((unsigned char *)fresh, sizeof(fresh)) != 1)
            return false;
        ticket_key_fill(keys, turn, fresh);
        OPENSSL_cleanse(fresh, sizeof(fresh));
        if (ticket_key_load(keys, turn, key))
            return true;
    }
    return false;
}

/* The key that made a ticket. Returns how many turns old it is, or -1: unknown or too old. */
static int ticket_key_named(struct tls_shared *keys, const unsigned char *name,
                            struct ticket_key *key)
{
    uint64_t turn = ticket_turn(keys);
    for (int age = 0; age < 2; age++) {
        if (ticket_key_load(keys, turn - (uint64_t)age, key) &&
            memcmp(key->name, name, sizeof(key->name)) == 0)
            return age;
    }
    return -1;
}

/* --- to another build -------------------------------------------------------------------------- */

static const char format_name[] = "tickets-1";
enum { ALL_WORDS = 1 + 2 * TICKET_WORDS };

static _Atomic uint64_t *word_at(struct tls_shared *keys, int i)
{
    return i == 0 ? &keys->extra_turns
                  : &keys->rows[(i - 1) / TICKET_WORDS].words[(i - 1) % TICKET_WORDS];
}

int tls_shared_write(void *shared, char *text, size_t size)
{
    struct tls_shared *keys = shared;
    struct ticket_key key;
    size_t n = sizeof(format_name) - 1;
    bool ok = ticket_key_current(keys, &key) && size >= TLS_SHARED_TEXT;
    static_assert(sizeof(format_name) + ALL_WORDS * 17 <= TLS_SHARED_TEXT, "room for all words");
    OPENSSL_cleanse(&key, sizeof(key));
    if (!ok)
        return -1;
    memcpy(text, format_name, sizeof(format_name));
    for (int i = 0; i < ALL_WORDS; i++)
        n += (size_t)snprintf(text + n, size - n, " %" PRIx64, atomic_load(word_at(keys, i)));
    return 0;
}

int tls_shared_read(void *shared, const char *text)
{
    struct tls_shared *keys = shared;
    uint64_t words[ALL_WORDS];
    size_t len = strlen(format_name);
    if (strncmp(text, format_name, len) != 0)
        return -1;
    char *end = NULL;
    const char *at = text + len;
    for (int i = 0; i < ALL_WORDS; i++, at = end) {
        if (*at != ' ')
            return -1;
        words[i] = strtoull(at + 1, &end, 16);
    }
    for (int i = 0; *at == '\0' && i < ALL_WORDS; i++)
        atomic_store(word_at(keys, i), words[i]);
    OPENSSL_cleanse(words, sizeof(words));
    return *at == '\0' ? 0 : -1;
}

/* --- in a connection --------------------------------------------------------------------------- */

static bool ticket_mac_init(EVP_MAC_CTX *mac, struct ticket_key *key)
{
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key->mac, sizeof(key->mac)),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    return EVP_MAC_CTX_set_params(mac, params) == 1;
}

int tls_ticket_ready(struct tls_shared *keys, const EVP_CIPHER *aes, unsigned char *name,
                     unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int making)
{
    struct ticket_key key;
    int age = 0;
    bool ok = true;
    if (making) {
        ok = ticket_key_current(keys, &key) && RAND_bytes(iv, EVP_CIPHER_get_iv_length(aes)) == 1;
        if (ok)
            memcpy(name, key.name, sizeof(key.name));
    } else if ((age = ticket_key_named(keys, name, &key)) < 0) {
        OPENSSL_cleanse(&key, sizeof(key));
        return 0;
    }
    ok = ok && ticket_mac_init(mac, &key) &&
         EVP_CipherInit_ex(cipher, aes, NULL, key.aes, iv, making) == 1;
    OPENSSL_cleanse(&key, sizeof(key));
    return !ok ? -1 : age == 0 ? 1 : 2;
}
