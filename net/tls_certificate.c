/* SPDX-License-Identifier: MIT */
/* Certificates and keys from their PEM files, and the names in them, with a sentence for whatever
 * is wrong with one. See net/tls_priv.h for the other parts of TLS. */
#include "net/tls_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

enum { FILE_BYTES_MAX = 1024 * 1024 /* a certificate or key file */ };

bool tls_complain(struct tls_complaint c, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(c.why, c.size, format, arguments);
    va_end(arguments);
    ERR_clear_error();
    return false;
}

const char *tls_openssl_reason(void)
{
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    return reason != NULL ? reason : "OpenSSL does not say why";
}

/* Read all of a regular file; a pipe would make the master wait. free() the bytes. */
static bool read_file(const char *path, char **bytes, size_t *len, struct tls_complaint c)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return tls_complain(c, "can't read %s: %s", path, strerror(errno));
    struct stat about;
    char *all = NULL;
    ssize_t n = 0;
    size_t have = 0;
    if (fstat(fd, &about) == 0 && !S_ISREG(about.st_mode))
        tls_complain(c, "%s is not a regular file", path);
    else if ((all = malloc(FILE_BYTES_MAX + 1)) == NULL)
        tls_complain(c, "can't read %s: %s", path, strerror(errno));
    else {
        while ((n = read(fd, all + have, FILE_BYTES_MAX + 1 - have)) > 0 ||
               (n < 0 && errno == EINTR))
            have += n > 0 ? (size_t)n : 0;
        if (n < 0)
            tls_complain(c, "can't read %s: %s", path, strerror(errno));
        else if (have > FILE_BYTES_MAX)
            tls_complain(c, "%s is larger than a PEM file may be (1 MiB)", path);
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
static BIO *open_pem(const char *path, char **bytes, size_t *len, struct tls_complaint c)
{
    if (path == NULL || path[0] == '\0') {
        tls_complain(c, "no file is named");
        return NULL;
    }
    if (!read_file(path, bytes, len, c))
        return NULL;
    BIO *bio = BIO_new_mem_buf(*bytes, (int)*len);
    if (bio == NULL) {
        free(*bytes);
        tls_complain(c, "can't read %s: out of memory", path);
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
static bool read_chain(BIO *bio, struct tls_loaded *l, const char *path, struct tls_complaint c)
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
            return tls_complain(c, "can't read %s: out of memory", path);
        }
    }
    if (!pem_ended())
        return tls_complain(c, "certificate %d in %s can't be read: %s", sk_X509_num(l->chain) + 2,
                            path, tls_openssl_reason());
    ERR_clear_error();
    return true;
}

static bool read_certificates(const char *path, struct tls_loaded *l, struct tls_complaint c)
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
        ok = tls_complain(c, "%s holds no PEM certificate", path);
    else
        ok = tls_complain(c, "the certificate in %s can't be read: %s", path, tls_openssl_reason());
    close_pem(bio, bytes, len);
    return ok;
}

static bool kind_of_key(EVP_PKEY *key, enum tls_kind *kind)
{
    switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_EC:
        *kind = TLS_KIND_EC;
        return true;
    case EVP_PKEY_RSA:
        *kind = TLS_KIND_RSA;
        return true;
    case EVP_PKEY_RSA_PSS:
        *kind = TLS_KIND_RSA_PSS;
        return true;
    case EVP_PKEY_ED25519:
        *kind = TLS_KIND_ED25519;
        return true;
    case EVP_PKEY_ED448:
        *kind = TLS_KIND_ED448;
        return true;
    default:
        return false; /* an open set: whatever OpenSSL can load */
    }
}

static bool read_key(const char *path, struct tls_loaded *l, struct tls_complaint c)
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
        ok = tls_complain(c, "the key in %s is encrypted; it must be one without a passphrase",
                          path);
    else if (l->key == NULL && memmem(bytes, len, "PRIVATE KEY-----", 16) == NULL)
        ok = tls_complain(c, "%s holds no PEM private key", path);
    else if (l->key == NULL)
        ok = tls_complain(c, "the key in %s can't be read: %s", path, tls_openssl_reason());
    else if (!kind_of_key(l->key, &l->kind))
        ok = tls_complain(c, "the key in %s is neither RSA, ECDSA nor EdDSA", path);
    close_pem(bio, bytes, len);
    return ok;
}

/* Append a name, lower case. What can't be a host name's pattern is passed over. */
static bool add_name(struct tls_loaded *l, const ASN1_STRING *name)
{
    const unsigned char *bytes = ASN1_STRING_get0_data(name);
    size_t len = (size_t)ASN1_STRING_length(name);
    if (len == 0 || len > TLS_NAME_BYTES_MAX || memchr(bytes, '\0', len) != NULL)
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
static bool read_names(struct tls_loaded *l)
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

bool tls_load(const struct tls_certificate *from, struct tls_loaded *l, struct tls_complaint c)
{
    if (!read_certificates(from->certificate, l, c) || !read_key(from->key, l, c))
        return false;
    if (X509_check_private_key(l->leaf, l->key) != 1)
        return tls_complain(c, "the key in %s does not belong to the certificate in %s", from->key,
                            from->certificate);
    return read_names(l) || tls_complain(c, "out of memory");
}

void tls_unload(struct tls_loaded *l)
{
    X509_free(l->leaf);
    sk_X509_pop_free(l->chain, X509_free);
    EVP_PKEY_free(l->key);
    for (size_t i = 0; i < l->name_count; i++)
        free(l->names[i]);
    free(l->names);
}
