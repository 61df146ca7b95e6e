/* SPDX-License-Identifier: MIT */
/* A self-signed certificate: see server/lab/self_signed.h. Its key is the kind that servers mostly have
 * now (P-256), so that handshakes cost what they cost elsewhere. */
#include "server/lab/self_signed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

enum { WEEK_S = 7 * 24 * 3600 };

static bool add_names(X509 *certificate)
{
    X509_EXTENSION *names =
        X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1");
    bool good = names && X509_add_ext(certificate, names, -1) == 1;
    X509_EXTENSION_free(names);
    return good;
}

static bool fill(X509 *certificate, EVP_PKEY *key)
{
    X509_NAME *name = X509_get_subject_name(certificate);
    X509_set_version(certificate, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
    X509_gmtime_adj(X509_getm_notAfter(certificate), WEEK_S);
    return X509_set_pubkey(certificate, key) == 1 &&
           X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"localhost",
                                      -1, -1, 0) == 1 &&
           X509_set_issuer_name(certificate, name) == 1 && add_names(certificate) &&
           X509_sign(certificate, key, EVP_sha256()) > 0;
}

static FILE *make(const char *path, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
    if (fd >= 0 && !file)
        close(fd);
    return file;
}

static bool write_both(const char *certificate_path, const char *key_path, X509 *certificate,
                       EVP_PKEY *key)
{
    FILE *public = make(certificate_path, 0644), *private = make(key_path, 0600);
    bool good = public && private && PEM_write_X509(public, certificate) == 1 &&
                PEM_write_PrivateKey(private, key, NULL, NULL, 0, NULL, NULL) == 1;
    if (public && fclose(public) != 0)
        good = false;
    if (private && fclose(private) != 0)
        good = false;
    return good;
}

int self_signed(const char *certificate_path, const char *key_path, char *why, size_t why_size)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    bool made = key && certificate && fill(certificate, key);
    bool written = made && write_both(certificate_path, key_path, certificate, key);
    if (!made)
        snprintf(why, why_size, "OpenSSL cannot make a certificate");
    else if (!written)
        snprintf(why, why_size, "cannot write %s and %s: %s", certificate_path, key_path,
                 strerror(errno));
    X509_free(certificate);
    EVP_PKEY_free(key);
    return written ? 0 : -1;
}
