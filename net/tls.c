/* SPDX-License-Identifier: MIT */
/* TLS on OpenSSL 3.0: the certificates of a listener, the keys of its session tickets, and the
 * transport that each connection gets.
 *
 * It stands alone so that OpenSSL is seen nowhere else: another library would be one other file.
 * The three parts are in this order: ticket keys, context, transport.
 *
 * One code path: TLS always lies over another transport (a plain socket, or memory in tests)
 * through a BIO of ours. Against OpenSSL's own socket BIO that costs nothing measurable, sends with
 * MSG_NOSIGNAL, and can tell whether the socket was emptied.
 *
 * Ticket keys live in memory that all processes of a listener share, and any of them may be killed
 * at any instruction. So there is no lock and no sequence count in it: a key is a row of 64-bit
 * words, each 40 random bits under a tag that says to which turn it belongs. Whoever needs the key
 * of this turn sets, by compare-and-swap, the words that don't bear its tag yet, and takes the
 * words that somebody else has set. All see the same key, whoever set which words; a half-set key
 * is completed by the next who needs it; nobody ever waits. The two rows serve odd and even turns,
 * so that starting a turn wipes the key of the turn before last: stolen memory opens no older
 * ticket.
 *
 * Threading: a context is read-only after it was made, but for its reference count; a transport
 * belongs to one thread at a time. Invariants: OpenSSL's error queue of a thread is empty between
 * calls; after TRANSPORT_GONE no call reaches OpenSSL again but SSL_free.
 */
#include "net/tls.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

enum {
    RECORD_BYTES = SSL3_RT_MAX_PLAIN_LENGTH, /* plaintext in one record at most: 16 KiB */
    FILE_BYTES_MAX = 1024 * 1024,            /* a certificate or key file */
    NAME_BYTES_MAX = 255,
    TICKET_TURN_S = 8 * 3600, /* a ticket key is given out so long, and accepted as long again */
    TICKET_WORDS = 16,        /* 16 x 5 bytes hold a struct ticket_key */
    TICKET_WORD_BYTES = 5,
    TICKET_TAG_SHIFT = 8 * TICKET_WORD_BYTES,
    TICKET_TRIES = 4,
};

/* --- ticket keys --------------------------------------------------------------------------- */

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
    return (uint64_t)now.tv_sec / TICKET_TURN_S + 1 + atomic_load(&keys->extra_turns);
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

/* --- the context --------------------------------------------------------------------------- */

/* Certificates of different kinds can serve one name: OpenSSL takes what the client can check. */
enum kind { KIND_EC, KIND_RSA, KIND_RSA_PSS, KIND_ED25519, KIND_ED448, KIND_COUNT };

/* Certificates that serve the same names: one of each kind at most. */
struct tls_set {
    int certificate[KIND_COUNT]; /* index; -1 none */
    int min_version;
    SSL_CTX *ssl_ctx;
};

static const struct tls_set no_set = {.certificate = {-1, -1, -1, -1, -1}};

struct tls_name {
    char *text; /* lower case; "*.rest" is a wildcard */
    size_t set;
};

struct tls_context {
    _Atomic size_t references;
    struct tls_set *sets; /* the first belongs to the default certificate */
    size_t set_count;
    struct tls_name *names; /* sorted by text */
    size_t name_count;
    bool any_protocol; /* ALPN is not answered */
    struct tls_shared *keys;
    struct tls_shared *own_keys; /* when none are shared */
    EVP_CIPHER *ticket_cipher;
    BIO_METHOD *bio_method;
};

/* A certificate while the context is made. */
struct loaded {
    X509 *leaf;
    STACK_OF(X509) * chain;
    EVP_PKEY *key;
    enum kind kind;
    char **names;
    size_t name_count;
};

/* Where to say what is wrong. */
struct complaint {
    char *why;
    size_t size;
};

__attribute__((format(printf, 2, 3))) static bool complain(struct complaint c, const char *format,
                                                           ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(c.why, c.size, format, arguments);
    va_end(arguments);
    ERR_clear_error();
    return false;
}

/* OpenSSL's own words for the first thing that went wrong. */
static const char *openssl_reason(void)
{
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    return reason != NULL ? reason : "OpenSSL does not say why";
}

/* Read all of a regular file; a pipe would make the master wait. free() the bytes. */
static bool read_file(const char *path, char **bytes, size_t *len, struct complaint c)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return complain(c, "can't read %s: %s", path, strerror(errno));
    struct stat about;
    char *all = NULL;
    ssize_t n = 0;
    size_t have = 0;
    if (fstat(fd, &about) == 0 && !S_ISREG(about.st_mode))
        complain(c, "%s is not a regular file", path);
    else if ((all = malloc(FILE_BYTES_MAX + 1)) == NULL)
        complain(c, "can't read %s: %s", path, strerror(errno));
    else {
        while ((n = read(fd, all + have, FILE_BYTES_MAX + 1 - have)) > 0 ||
               (n < 0 && errno == EINTR))
            have += n > 0 ? (size_t)n : 0;
        if (n < 0)
            complain(c, "can't read %s: %s", path, strerror(errno));
        else if (have > FILE_BYTES_MAX)
            complain(c, "%s is larger than a PEM file may be (1 MiB)", path);
    }
    close(fd);
    if (all == NULL || n < 0 || have > FILE_BYTES_MAX) {
        free(all);
        return false;
    }
    *bytes = all;
    *len = have;
    return true;
}

/* A PEM file as a BIO. The bytes are the caller's to wipe and free after it. */
static BIO *open_pem(const char *path, char **bytes, size_t *len, struct complaint c)
{
    if (path == NULL || path[0] == '\0') {
        complain(c, "no file is named");
        return NULL;
    }
    if (!read_file(path, bytes, len, c))
        return NULL;
    BIO *bio = BIO_new_mem_buf(*bytes, (int)*len);
    if (bio == NULL) {
        free(*bytes);
        complain(c, "can't read %s: out of memory", path);
    }
    return bio;
}

static void close_pem(BIO *bio, char *bytes, size_t len)
{
    BIO_free(bio);
    OPENSSL_cleanse(bytes, len);
    free(bytes);
}

/* A server must start unattended, so nobody is asked for a passphrase. */
static int refuse_passphrase(char *buffer, int size, int writing, void *asked)
{
    (void)buffer, (void)size, (void)writing;
    *(bool *)asked = true;
    return -1;
}

static bool pem_ended(void)
{
    unsigned long error = ERR_peek_last_error();
    return ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
}

/* The certificates behind the leaf, to the end of the file. */
static bool read_chain(BIO *bio, struct loaded *l, const char *path, struct complaint c)
{
    bool asked = false;
    l->chain = sk_X509_new_null();
    for (;;) {
        ERR_clear_error();
        X509 *next = PEM_read_bio_X509(bio, NULL, refuse_passphrase, &asked);
        if (next == NULL)
            break;
        if (l->chain == NULL || sk_X509_push(l->chain, next) == 0) {
            X509_free(next);
            return complain(c, "can't read %s: out of memory", path);
        }
    }
    if (!pem_ended())
        return complain(c, "certificate %d in %s can't be read: %s", sk_X509_num(l->chain) + 2,
                        path, openssl_reason());
    ERR_clear_error();
    return true;
}

static bool read_certificates(const char *path, struct loaded *l, struct complaint c)
{
    char *bytes;
    size_t len;
    bool asked = false, ok;
    BIO *bio = open_pem(path, &bytes, &len, c);
    if (bio == NULL)
        return false;
    ERR_clear_error();
    l->leaf = PEM_read_bio_X509_AUX(bio, NULL, refuse_passphrase, &asked);
    if (l->leaf != NULL)
        ok = read_chain(bio, l, path, c);
    else if (pem_ended())
        ok = complain(c, "%s holds no PEM certificate", path);
    else
        ok = complain(c, "the certificate in %s can't be read: %s", path, openssl_reason());
    close_pem(bio, bytes, len);
    return ok;
}

static bool kind_of_key(EVP_PKEY *key, enum kind *kind)
{
    switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_EC:
        *kind = KIND_EC;
        return true;
    case EVP_PKEY_RSA:
        *kind = KIND_RSA;
        return true;
    case EVP_PKEY_RSA_PSS:
        *kind = KIND_RSA_PSS;
        return true;
    case EVP_PKEY_ED25519:
        *kind = KIND_ED25519;
        return true;
    case EVP_PKEY_ED448:
        *kind = KIND_ED448;
        return true;
    default:
        return false; /* an open set: whatever OpenSSL can load */
    }
}

static bool read_key(const char *path, struct loaded *l, struct complaint c)
{
    char *bytes;
    size_t len;
    bool asked = false, ok = true;
    BIO *bio = open_pem(path, &bytes, &len, c);
    if (bio == NULL)
        return false;
    ERR_clear_error();
    l->key = PEM_read_bio_PrivateKey(bio, NULL, refuse_passphrase, &asked);
    if (asked)
        ok = complain(c, "the key in %s is encrypted; it must be one without a passphrase", path);
    else if (l->key == NULL && memmem(bytes, len, "PRIVATE KEY-----", 16) == NULL)
        ok = complain(c, "%s holds no PEM private key", path);
    else if (l->key == NULL)
        ok = complain(c, "the key in %s can't be read: %s", path, openssl_reason());
    else if (!kind_of_key(l->key, &l->kind))
        ok = complain(c, "the key in %s is neither RSA, ECDSA nor EdDSA", path);
    close_pem(bio, bytes, len);
    return ok;
}

/* Append a name, lower case. What can't be a host name's pattern is passed over. */
static bool add_name(struct loaded *l, const ASN1_STRING *name)
{
    const unsigned char *bytes = ASN1_STRING_get0_data(name);
    size_t len = (size_t)ASN1_STRING_length(name);
    if (len == 0 || len > NAME_BYTES_MAX || memchr(bytes, '\0', len) != NULL)
        return true;
    char **names = realloc(l->names, (l->name_count + 1) * sizeof(*names));
    if (names == NULL)
        return false;
    l->names = names;
    char *text = strndup((const char *)bytes, len);
    if (text == NULL)
        return false;
    for (char *at = text; *at != '\0'; at++)
        *at = *at >= 'A' && *at <= 'Z' ? (char)(*at + 'a' - 'A') : *at;
    names[l->name_count++] = text;
    return true;
}

/* The DNS names that a certificate is for; the common name counts only where there are none. */
static bool read_names(struct loaded *l)
{
    bool ok = true;
    GENERAL_NAMES *alt = X509_get_ext_d2i(l->leaf, NID_subject_alt_name, NULL, NULL);
    int dns = 0;
    for (int i = 0; ok && i < sk_GENERAL_NAME_num(alt); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(alt, i);
        if (name->type != GEN_DNS)
            continue;
        dns++;
        ok = add_name(l, name->d.dNSName);
    }
    GENERAL_NAMES_free(alt);
    X509_NAME *subject = X509_get_subject_name(l->leaf);
    int at = dns == 0 ? X509_NAME_get_index_by_NID(subject, NID_commonName, -1) : -1;
    if (at >= 0)
        ok = add_name(l, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    ERR_clear_error();
    return ok;
}

static bool load(const struct tls_certificate *from, struct loaded *l, struct complaint c)
{
    if (!read_certificates(from->certificate, l, c) || !read_key(from->key, l, c))
        return false;
    if (X509_check_private_key(l->leaf, l->key) != 1)
        return complain(c, "the key in %s does not belong to the certificate in %s", from->key,
                        from->certificate);
    return read_names(l) || complain(c, "out of memory");
}

static void unload(struct loaded *l)
{
    X509_free(l->leaf);
    sk_X509_pop_free(l->chain, X509_free);
    EVP_PKEY_free(l->key);
    for (size_t i = 0; i < l->name_count; i++)
        free(l->names[i]);
    free(l->names);
}

/* Does the certificate carry exactly this name? */
static bool carries(const struct loaded *l, const char *name)
{
    for (size_t i = 0; i < l->name_count; i++) {
        if (strcmp(l->names[i], name) == 0)
            return true;
    }
    return false;
}

/* Add to a set, for each kind that it lacks, the first certificate that carries name. */
static void set_collect(struct tls_set *set, const struct loaded *all, size_t count,
                        const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (set->certificate[all[i].kind] < 0 && carries(&all[i], name))
            set->certificate[all[i].kind] = (int)i;
    }
}

/* The certificates for a name: those that carry it, then wildcards for the kinds still missing. */
static struct tls_set set_for(const struct loaded *all, size_t count, const char *name)
{
    struct tls_set set = no_set;
    const char *dot = strchr(name, '.');
    char wildcard[NAME_BYTES_MAX + 2];
    set_collect(&set, all, count, name);
    if (dot != NULL && name[0] != '*') {
        snprintf(wildcard, sizeof(wildcard), "*%s", dot);
        set_collect(&set, all, count, wildcard);
    }
    return set;
}

/* The index of a set in the context, which takes it up if it is new. There is room. */
static size_t set_index(struct tls_context *context, const struct tls_set *set)
{
    size_t i = 0;
    for (; i < context->set_count; i++) {
        const struct tls_set *known = &context->sets[i];
        if (memcmp(known->certificate, set->certificate, sizeof(set->certificate)) == 0)
            return i;
    }
    context->sets[context->set_count++] = *set;
    return i;
}

static int compare_names(const void *a, const void *b)
{
    const struct tls_name *left = a, *right = b;
    return strcmp(left->text, right->text);
}

/* Forget repeated names; equal ones have equal sets. */
static void names_sort(struct tls_context *context)
{
    size_t kept = 0;
    if (context->name_count > 0)
        qsort(context->names, context->name_count, sizeof(*context->names), compare_names);
    for (size_t i = 0; i < context->name_count; i++) {
        if (kept > 0 && strcmp(context->names[kept - 1].text, context->names[i].text) == 0)
            free(context->names[i].text);
        else
            context->names[kept++] = context->names[i];
    }
    context->name_count = kept;
}

/* Work out which names there are and which certificates serve each. The default set is that of the
 * default certificate's first name. */
static bool plan_sets(struct tls_context *context, const struct loaded *all, size_t count)
{
    size_t names = 0;
    for (size_t i = 0; i < count; i++)
        names += all[i].name_count;
    context->sets = calloc(names + 1, sizeof(*context->sets));
    context->names = calloc(names + 1, sizeof(*context->names));
    if (context->sets == NULL || context->names == NULL)
        return false;
    struct tls_set first = no_set;
    if (all[0].name_count > 0)
        first = set_for(all, count, all[0].names[0]);
    first.certificate[all[0].kind] = 0;
    set_index(context, &first);
    for (size_t i = 0; i < count; i++) {
        for (size_t n = 0; n < all[i].name_count; n++) {
            struct tls_set set = set_for(all, count, all[i].names[n]);
            struct tls_name *name = &context->names[context->name_count++];
            name->set = set_index(context, &set);
            name->text = strdup(all[i].names[n]);
            if (name->text == NULL) {
                context->name_count--;
                return false;
            }
        }
    }
    names_sort(context);
    return true;
}

/* --- what OpenSSL asks during a handshake -------------------------------------------------- */

static const struct tls_set *set_of_text(const struct tls_context *context, char *text)
{
    const struct tls_name *found =
        bsearch(&(struct tls_name){.text = text}, context->names, context->name_count,
                sizeof(*context->names), compare_names);
    return found != NULL ? &context->sets[found->set] : NULL;
}

/* The set for the name that a client asks for: the exact name, a wildcard, else the default. */
static const struct tls_set *set_of_name(const struct tls_context *context, const char *asked)
{
    char text[NAME_BYTES_MAX + 1];
    size_t len = asked != NULL ? strlen(asked) : 0;
    const struct tls_set *set = NULL;
    if (len > 0 && asked[len - 1] == '.')
        len--;
    if (len == 0 || len > NAME_BYTES_MAX || asked[0] == '*')
        return &context->sets[0];
    for (size_t i = 0; i < len; i++)
        text[i] = asked[i] >= 'A' && asked[i] <= 'Z' ? (char)(asked[i] + 'a' - 'A') : asked[i];
    text[len] = '\0';
    set = set_of_text(context, text);
    char *dot = strchr(text, '.');
    if (set == NULL && dot != NULL && dot > text) {
        dot[-1] = '*';
        set = set_of_text(context, dot - 1);
    }
    return set != NULL ? set : &context->sets[0];
}

/* Also called without SNI. The version was chosen already; TLS 1.3 whenever the client has it, so
 * refusing here is the same as a minimum of this name alone. */
static int on_server_name(SSL *ssl, int *alert, void *argument)
{
    const struct tls_context *context = argument;
    const struct tls_set *set =
        set_of_name(context, SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name));
    if (SSL_version(ssl) < set->min_version) {
        *alert = SSL_AD_PROTOCOL_VERSION;
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    if (SSL_get_SSL_CTX(ssl) != set->ssl_ctx && SSL_set_SSL_CTX(ssl, set->ssl_ctx) == NULL) {
        *alert = SSL_AD_INTERNAL_ERROR;
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    return SSL_TLSEXT_ERR_OK;
}

/* What we speak, best first: some clients that want HTTP/1.0 offer that alone. */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                   const unsigned char *in, unsigned in_len, void *argument)
{
    static const unsigned char ours[] = "\x08http/1.1\x08http/1.0";
    const struct tls_context *context = argument;
    unsigned char *chosen;
    (void)ssl;
    if (context->any_protocol)
        return SSL_TLSEXT_ERR_NOACK;
    if (SSL_select_next_proto(&chosen, out_len, ours, sizeof ours - 1, in, in_len) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL; /* no_application_protocol */
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

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

/* Ready a ticket's cipher and MAC. Returns -1 on failure, 0: key unknown, 1, or 2: renew it. */
static int on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                     EVP_MAC_CTX *mac, int making)
{
    struct tls_context *context = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    struct ticket_key key;
    int age = 0;
    bool ok = true;
    if (making) {
        ok = ticket_key_current(context->keys, &key) &&
             RAND_bytes(iv, EVP_CIPHER_get_iv_length(context->ticket_cipher)) == 1;
        if (ok)
            memcpy(name, key.name, sizeof(key.name));
    } else if ((age = ticket_key_named(context->keys, name, &key)) < 0) {
        OPENSSL_cleanse(&key, sizeof(key));
        return 0;
    }
    ok = ok && ticket_mac_init(mac, &key) &&
         EVP_CipherInit_ex(cipher, context->ticket_cipher, NULL, key.aes, iv, making) == 1;
    OPENSSL_cleanse(&key, sizeof(key));
    return !ok ? -1 : age == 0 ? 1 : 2;
}

/* --- making the context -------------------------------------------------------------------- */

/* What every SSL_CTX of ours has. AES-128 first, but ChaCha20 for clients that put it first
 * (telephones without AES). Groups are few, because the default ones allow slow key exchanges. */
static bool ssl_ctx_settings(SSL_CTX *s)
{
    char groups[] = "X25519:P-256:P-384:P-521"; /* the macro casts const away */
    SSL_CTX_set_options(s, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                               SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    /* NO_AUTO_CHAIN: else a leaf sent alone makes each handshake look for its issuer. */
    SSL_CTX_set_mode(s, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                            SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_read_ahead(s, 1);
    SSL_CTX_set_session_cache_mode(s, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_timeout(s, TICKET_TURN_S);
    return SSL_CTX_set_num_tickets(s, 1) == 1 &&
           SSL_CTX_set_session_id_context(s, (const unsigned char *)"modus", 5) == 1 &&
           SSL_CTX_set_cipher_list(
               s, "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
                  "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
                  "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305") == 1 &&
           SSL_CTX_set_ciphersuites(s, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:"
                                       "TLS_CHACHA20_POLY1305_SHA256") == 1 &&
           SSL_CTX_set1_groups_list(s, groups) == 1;
}

static SSL_CTX *ssl_ctx_new(struct tls_context *context, int min_version)
{
    SSL_CTX *s = SSL_CTX_new(TLS_server_method());
    if (s == NULL)
        return NULL;
    if (!ssl_ctx_settings(s) || SSL_CTX_set_min_proto_version(s, min_version) != 1 ||
        SSL_CTX_set_app_data(s, context) != 1 ||
        SSL_CTX_set_tlsext_ticket_key_evp_cb(s, on_ticket) != 1) {
        SSL_CTX_free(s);
        return NULL;
    }
    SSL_CTX_set_tlsext_servername_callback(s, on_server_name);
    SSL_CTX_set_tlsext_servername_arg(s, context);
    SSL_CTX_set_alpn_select_cb(s, on_alpn, context);
    return s;
}

static int version_of(const struct tls_certificate *certificate)
{
    return certificate->min_version >= TLS1_3_VERSION ? TLS1_3_VERSION : TLS1_2_VERSION;
}

/* Every handshake begins in the first SSL_CTX, so its minimum is the lowest of all names. */
static int lowest_version(const struct tls_certificate *certificates, size_t count)
{
    int lowest = TLS1_3_VERSION;
    for (size_t i = 0; i < count; i++) {
        if (version_of(&certificates[i]) < lowest)
            lowest = version_of(&certificates[i]);
    }
    return lowest;
}

/* Give a set its SSL_CTX. A name is as strict as the strictest of its certificates. */
static bool set_open(struct tls_context *context, struct tls_set *set, int lowest,
                     const struct tls_certificate *from, const struct loaded *all, size_t *bad,
                     struct complaint c)
{
    set->ssl_ctx = ssl_ctx_new(context, lowest);
    if (set->ssl_ctx == NULL)
        return complain(c, "TLS can't be set up: %s", openssl_reason());
    for (int kind = 0; kind < KIND_COUNT; kind++) {
        int i = set->certificate[kind];
        if (i < 0)
            continue;
        ERR_clear_error();
        if (SSL_CTX_use_cert_and_key(set->ssl_ctx, all[i].leaf, all[i].key, all[i].chain, 1) != 1) {
            *bad = (size_t)i;
            return complain(c, "%s can't be used: %s", from[i].certificate, openssl_reason());
        }
        if (version_of(&from[i]) > set->min_version)
            set->min_version = version_of(&from[i]);
    }
    return true;
}

static const BIO_METHOD *bio_method_of(struct tls_context *context);

/* Everything in the context that does not depend on the certificates. */
static bool context_open(struct tls_context *context, void *shared)
{
    context->references = 1;
    context->keys = shared;
    if (shared == NULL) {
        context->own_keys = aligned_alloc(64, sizeof(struct tls_shared));
        if (context->own_keys == NULL)
            return false;
        memset(context->own_keys, 0, sizeof(struct tls_shared));
        context->keys = context->own_keys;
    }
    context->ticket_cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
    return context->ticket_cipher != NULL && bio_method_of(context) != NULL;
}

/* Fill an opened context. all is the caller's to unload, whatever comes of it. */
static bool context_fill(struct tls_context *context, const struct tls_certificate *from,
                         struct loaded *all, size_t count, size_t *bad, struct complaint c)
{
    for (size_t i = 0; i < count; i++) {
        if (!load(&from[i], &all[i], c)) {
            *bad = i;
            return false;
        }
    }
    if (!plan_sets(context, all, count))
        return complain(c, "out of memory");
    for (size_t i = 0; i < context->set_count; i++) {
        if (!set_open(context, &context->sets[i], lowest_version(from, count), from, all, bad, c))
            return false;
    }
    return true;
}

struct tls_context *tls_context_new(const struct tls_certificate *certificates, size_t count,
                                    void *shared, size_t *bad, char *why, size_t why_size)
{
    struct complaint c = {why, why_size};
    size_t which = 0;
    bool ok = false;
    struct tls_context *context = calloc(1, sizeof(*context));
    struct loaded *all = calloc(count + 1, sizeof(*all));
    ERR_clear_error();
    if (context == NULL || all == NULL)
        complain(c, "out of memory");
    else if (count == 0)
        complain(c, "no certificate is given");
    else if (!context_open(context, shared))
        complain(c, "TLS can't be set up: %s", openssl_reason());
    else
        ok = context_fill(context, certificates, all, count, &which, c);
    for (size_t i = 0; all != NULL && i < count; i++)
        unload(&all[i]);
    free(all);
    ERR_clear_error();
    if (ok)
        return context;
    *bad = which;
    tls_context_free(context);
    return NULL;
}

void tls_context_any_protocol(struct tls_context *context)
{
    context->any_protocol = true;
}

void tls_context_free(struct tls_context *context)
{
    if (context == NULL || atomic_fetch_sub(&context->references, 1) > 1)
        return;
    for (size_t i = 0; i < context->set_count; i++)
        SSL_CTX_free(context->sets[i].ssl_ctx);
    for (size_t i = 0; i < context->name_count; i++)
        free(context->names[i].text);
    if (context->own_keys != NULL)
        OPENSSL_cleanse(context->own_keys, sizeof(*context->own_keys));
    free(context->own_keys);
    EVP_CIPHER_free(context->ticket_cipher);
    BIO_meth_free(context->bio_method);
    free(context->sets);
    free(context->names);
    free(context);
}

/* --- the transport ------------------------------------------------------------------------- */

struct tls {
    SSL *ssl;
    struct transport under;
    struct tls_context *context; /* a reference */
    size_t refused;              /* length of the record that a WANT left with OpenSSL; 0 none */
    unsigned long failure;       /* OpenSSL's code of what made it gone; 0 none or not OpenSSL's */
    struct tls_rest rest;        /* what came in the place of a handshake */
    char first[8];               /* the first bytes, while they may be HTTP in the clear */
    size_t first_len;
    bool guessing;               /* OpenSSL has seen nothing yet */
    bool gone;
    bool more;    /* further bytes follow the record that is being written */
    bool asked;   /* the last read() read below; OpenSSL may have had a record left */
    bool emptied; /* and that brought less than there was room for */
    bool starved; /* the last read() brought nothing; more needs the socket first */
    bool said;    /* close_notify is out */
};

/* Records are joined here, and file parts read. One a thread, because a coroutine's stack is too
 * small for it and a connection has none to spare; nothing in it outlives a call. */
static _Thread_local unsigned char scratch[RECORD_BYTES];

/* Bytes between OpenSSL and the transport below; a WANT becomes a retry flag. These are the old
 * kind of callback, because the new kind can't tell a refusal (-1) from an end (0), and
 * SSL_shutdown then takes a refused close_notify for a sent one. */
static int bio_result(BIO *bio, ssize_t n)
{
    BIO_clear_retry_flags(bio);
    if (n == TRANSPORT_WANT_READ)
        BIO_set_retry_read(bio);
    else if (n == TRANSPORT_WANT_WRITE)
        BIO_set_retry_write(bio);
    return n >= 0 ? (int)n : -1;
}

/* What do the first bytes of a connection look like? None of these could begin TLS. */
enum guess { GUESS_OPEN, GUESS_HTTP, GUESS_OTHER };

static enum guess guess(const char *bytes, size_t len)
{
    static const char methods[][sizeof((struct tls *)0)->first + 1] = {
        "GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "CONNECT ", "OPTIONS ", "TRACE ", "PATCH "};
    enum guess best = GUESS_OTHER;
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        size_t size = strlen(methods[i]);
        if (memcmp(bytes, methods[i], len < size ? len : size) == 0)
            best = len < size ? GUESS_OPEN : GUESS_HTTP;
    }
    return best;
}

/* Until it is clear that this is no HTTP in the clear, OpenSSL sees nothing: it would answer some
 * methods with an alert, and keep what it read. Whatever it is, the bytes are not lost. */
static int bio_first_read(BIO *bio, struct tls *s, char *bytes, int len)
{
    size_t held = s->first_len, room = (size_t)len - held;
    memcpy(bytes, s->first, held);
    ssize_t n = s->under.ops->read(&s->under, bytes + held, room);
    s->asked = true;
    s->emptied = n < (ssize_t)room;
    if (n <= 0)
        return bio_result(bio, n);
    size_t have = held + (size_t)n;
    switch (guess(bytes, have)) {
    case GUESS_OPEN:
        memcpy(s->first, bytes, have);
        s->first_len = have;
        return bio_result(bio, TRANSPORT_WANT_READ);
    case GUESS_HTTP:
        s->rest.at = malloc(have);
        if (s->rest.at != NULL)
            memcpy(s->rest.at, bytes, have);
        s->rest.len = have;
        return bio_result(bio, TRANSPORT_GONE);
    case GUESS_OTHER:
        break;
    }
    s->guessing = false;
    return (int)have;
}

static int bio_read(BIO *bio, char *bytes, int len)
{
    struct tls *s = BIO_get_data(bio);
    if (s->guessing && len > (int)sizeof s->first)
        return bio_first_read(bio, s, bytes, len);
    ssize_t n = s->under.ops->read(&s->under, bytes, (size_t)len);
    s->asked = true;
    s->emptied = n < len;
    return bio_result(bio, n);
}

static int bio_write(BIO *bio, const char *bytes, int len)
{
    struct tls *s = BIO_get_data(bio);
    struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = (size_t)len};
    return bio_result(bio, s->under.ops->write(&s->under, &part, 1, s->more));
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH; /* nothing is ever held back here */
}

static const BIO_METHOD *bio_method_of(struct tls_context *context)
{
    BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "modus transport");
    if (method != NULL &&
        (BIO_meth_set_read(method, bio_read) != 1 || BIO_meth_set_write(method, bio_write) != 1 ||
         BIO_meth_set_ctrl(method, bio_control) != 1)) {
        BIO_meth_free(method);
        method = NULL;
    }
    context->bio_method = method;
    return method;
}

/* What became of a call that did not succeed: a WANT, GONE, or at_end, which says what the peer's
 * close_notify means here: 0 to a read, GONE to everything else. */
static int tls_code(struct tls *s, int result, int at_end)
{
    switch (SSL_get_error(s->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return TRANSPORT_WANT_READ;
    case SSL_ERROR_WANT_WRITE:
        return TRANSPORT_WANT_WRITE;
    case SSL_ERROR_ZERO_RETURN:
        s->gone = at_end == TRANSPORT_GONE;
        return at_end;
    default: /* an open set; whatever else there is, we can't go on */
        s->gone = true;
        s->failure = ERR_peek_error();
        ERR_clear_error();
        return TRANSPORT_GONE;
    }
}

static int tls_handshake(struct transport *t)
{
    struct tls *s = t->priv;
    if (s->gone)
        return TRANSPORT_GONE;
    ERR_clear_error();
    int result = SSL_do_handshake(s->ssl);
    int code = result == 1 ? 0 : tls_code(s, result, TRANSPORT_GONE);
    if (s->rest.at == NULL)
        return code;
    s->failure = ERR_PACK(ERR_LIB_SSL, 0, SSL_R_HTTP_REQUEST);
    return TRANSPORT_PLAIN_HTTP;
}

/* One record at most; what lies decrypted or undecrypted behind it is pending. */
static ssize_t tls_read(struct transport *t, void *bytes, size_t len)
{
    struct tls *s = t->priv;
    size_t n;
    assert(len > 0); /* else 0 would look like the end */
    if (s->gone)
        return TRANSPORT_GONE;
    ssize_t code;
    int tries = 2; /* once it has said what a KeyUpdate wanted, OpenSSL asks to be asked again */
    do {
        s->asked = s->emptied = false;
        ERR_clear_error();
        int result = SSL_read_ex(s->ssl, bytes, len, &n);
        code = result == 1 ? (ssize_t)n : tls_code(s, result, 0);
    } while (code == TRANSPORT_WANT_READ && !s->asked && --tries);
    s->starved = code <= 0;
    return code;
}

/* Write one record of len bytes. Returns len or less, a WANT or GONE. */
static ssize_t write_record(struct tls *s, const void *bytes, size_t len, bool more)
{
    size_t n = 0;
    ERR_clear_error();
    s->more = more;
    int result = SSL_write_ex(s->ssl, bytes, len, &n);
    s->more = false;
    s->refused = result == 1 ? 0 : len;
    return result == 1 ? (ssize_t)n : tls_code(s, result, TRANSPORT_GONE);
}

/* A place in an array of iovecs, and how much lies behind it. */
struct cursor {
    const struct iovec *iov;
    size_t at;
    size_t left;
};

static struct cursor cursor_of(const struct iovec *iov, int count)
{
    struct cursor c = {.iov = iov};
    for (int i = 0; i < count; i++)
        c.left += iov[i].iov_len;
    return c;
}

static void cursor_advance(struct cursor *c, size_t n)
{
    c->left -= n;
    while (n > 0) {
        size_t here = c->iov->iov_len - c->at;
        size_t step = n < here ? n : here;
        c->at += step;
        n -= step;
        if (c->at == c->iov->iov_len) {
            c->iov++;
            c->at = 0;
        }
    }
}

/* The next len bytes in one piece: where they are if they lie together, else joined in scratch. */
static const void *cursor_bytes(const struct cursor *c, size_t len)
{
    struct cursor from = *c;
    size_t have = 0;
    while (from.at == from.iov->iov_len) {
        from.iov++;
        from.at = 0;
    }
    if (from.iov->iov_len - from.at >= len)
        return (const char *)from.iov->iov_base + from.at;
    while (have < len) {
        size_t here = from.iov->iov_len - from.at;
        size_t n = here < len - have ? here : len - have;
        if (n > 0) /* an empty part may be NULL */
            memcpy(scratch + have, (const char *)from.iov->iov_base + from.at, n);
        have += n;
        from.iov++;
        from.at = 0;
    }
    return scratch;
}

/* How long the next record must be: as long as the one that was refused, because OpenSSL has it
 * encrypted already; else as long as can be. 0: the caller did not offer again what was refused. */
static size_t record_length(const struct tls *s, size_t left)
{
    size_t len = left < RECORD_BYTES ? left : RECORD_BYTES;
    if (s->refused > 0)
        len = s->refused <= left ? s->refused : 0;
    return len;
}

static int broken_promise(struct tls *s)
{
    s->gone = true;
    return TRANSPORT_GONE;
}

static ssize_t tls_write(struct transport *t, const struct iovec *iov, int count, bool more)
{
    struct tls *s = t->priv;
    struct cursor c = cursor_of(iov, count);
    ssize_t done = 0;
    if (s->gone)
        return TRANSPORT_GONE;
    while (c.left > 0) {
        size_t len = record_length(s, c.left);
        if (len == 0)
            return broken_promise(s);
        ssize_t n = write_record(s, cursor_bytes(&c, len), len, more || c.left > len);
        if (n < 0)
            return done > 0 ? done : n;
        cursor_advance(&c, (size_t)n);
        done += n;
    }
    return done;
}

/* The file's next bytes for a record of len. Returns how many, 0 at its end, or GONE. */
static ssize_t read_part(struct tls *s, int fd, int64_t offset, size_t len)
{
    ssize_t n;
    if (s->refused > 0)
        return (ssize_t)len; /* encrypted already; the file may have changed since */
    do {
        n = pread(fd, scratch, len, offset);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        s->gone = true; /* so that no close_notify makes a cut body look whole */
    return n < 0 ? TRANSPORT_GONE : n;
}

static ssize_t tls_send_file(struct transport *t, int fd, int64_t offset, size_t len)
{
    struct tls *s = t->priv;
    size_t done = 0;
    if (s->gone)
        return TRANSPORT_GONE;
    while (done < len) {
        size_t want = record_length(s, len - done);
        if (want == 0)
            return broken_promise(s);
        ssize_t n = read_part(s, fd, offset + (int64_t)done, want);
        if (n > 0)
            n = write_record(s, scratch, (size_t)n, len - done > (size_t)n);
        if (n <= 0)
            return done > 0 ? (ssize_t)done : n;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

/* Undecrypted bytes count, and so does a socket that was not read empty: a short read must mean
 * that nothing more is there. Worth one more read() each; after that starved ends it. */
static bool tls_pending(const struct transport *t)
{
    const struct tls *s = t->priv;
    return !s->gone && !s->starved &&
           (SSL_has_pending(s->ssl) == 1 || !s->emptied || s->under.ops->pending(&s->under));
}

static int say_goodbye(struct tls *s)
{
    ERR_clear_error();
    int result = SSL_shutdown(s->ssl);
    int code = result >= 0 ? 0 : tls_code(s, result, TRANSPORT_GONE);
    s->said = code == 0;
    return code;
}

static int tls_shutdown(struct transport *t)
{
    struct tls *s = t->priv;
    if (!s->gone && !s->said && SSL_is_init_finished(s->ssl)) {
        int code = say_goodbye(s);
        if (code != 0 && code != TRANSPORT_GONE)
            return code;
    }
    int below = s->under.ops->shutdown(&s->under);
    return s->gone ? TRANSPORT_GONE : below;
}

/* Both buffers went with the last byte of them (SSL_MODE_RELEASE_BUFFERS). */
static void tls_idle(struct transport *t)
{
    (void)t;
}

/* The flags stop SSL_free from taking the context's lock to forget a session that nobody kept. */
static void tls_free(struct tls *s)
{
    SSL_set_quiet_shutdown(s->ssl, 1);
    SSL_set_shutdown(s->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(s->ssl);
    tls_context_free(s->context);
    free(s->rest.at);
    free(s);
}

static void tls_close(struct transport *t)
{
    struct tls *s = t->priv;
    if (s == NULL)
        return;
    s->under.ops->close(&s->under);
    tls_free(s);
    t->fd = -1;
    t->priv = NULL;
}

static const struct transport_ops tls_ops = {
    .name = "tls",
    .handshake = tls_handshake,
    .read = tls_read,
    .write = tls_write,
    .send_file = tls_send_file,
    .pending = tls_pending,
    .shutdown = tls_shutdown,
    .idle = tls_idle,
    .close = tls_close,
};

int tls_accept_over(struct transport *t, struct tls_context *context, struct transport under)
{
    ERR_clear_error();
    struct tls *s = calloc(1, sizeof(*s));
    SSL *ssl = SSL_new(context->sets[0].ssl_ctx);
    BIO *bio = BIO_new(context->bio_method);
    if (s == NULL || ssl == NULL || bio == NULL) {
        ERR_clear_error();
        BIO_free(bio);
        SSL_free(ssl);
        free(s);
        return -1;
    }
    atomic_fetch_add(&context->references, 1);
    *s = (struct tls){
        .ssl = ssl, .under = under, .context = context, .emptied = true, .guessing = !context->any_protocol};
    BIO_set_data(bio, s);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_accept_state(ssl);
    *t = (struct transport){.ops = &tls_ops, .fd = under.fd, .priv = s};
    return 0;
}

int tls_accept(struct transport *t, struct tls_context *context, int fd)
{
    struct transport under;
    transport_plain(&under, fd);
    return tls_accept_over(t, context, under);
}

struct tls_rest tls_unwrap(struct transport *t)
{
    struct tls *s = t->priv;
    struct tls_rest rest = s->rest;
    *t = s->under;
    s->rest.at = NULL;
    tls_free(s);
    return rest;
}

/* --- what a log may want to know ----------------------------------------------------------- */

static const struct tls *tls_of(const struct transport *t)
{
    return t->ops == &tls_ops ? t->priv : NULL;
}

bool tls_resumed(const struct transport *t)
{
    const struct tls *s = tls_of(t);
    return s != NULL && SSL_session_reused(s->ssl) == 1;
}

const char *tls_server_name(const struct transport *t)
{
    const struct tls *s = tls_of(t);
    return s != NULL ? SSL_get_servername(s->ssl, TLSEXT_NAMETYPE_host_name) : NULL;
}

const char *tls_version(const struct transport *t)
{
    const struct tls *s = tls_of(t);
    return s != NULL && SSL_is_init_finished(s->ssl) ? SSL_get_version(s->ssl) : NULL;
}

const char *tls_cipher(const struct transport *t)
{
    const struct tls *s = tls_of(t);
    return s != NULL && SSL_is_init_finished(s->ssl) ? SSL_get_cipher_name(s->ssl) : NULL;
}

const char *tls_failure(const struct transport *t)
{
    const struct tls *s = tls_of(t);
    return s != NULL && s->failure != 0 ? ERR_reason_error_string(s->failure) : NULL;
}
