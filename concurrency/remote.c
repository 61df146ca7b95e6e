/* SPDX-License-Identifier: MIT */
/* Each verb on a remote object is one call; update is as many as it takes. */
#include "concurrency/remote.h"
#include "concurrency/client_priv.h"
#include "concurrency/value.h"

#include <limits.h>
#include <stdlib.h>

static int call_with(struct modus_remote *remote, enum modus_wire_verb verb,
                     struct modus_remote_call *call)
{
    call->request.verb = (uint16_t)verb;
    call->request.object = remote->id;
    return modus_client_call(remote->client, call);
}

/* A call without bytes. */
static int ask(struct modus_remote *remote, enum modus_wire_verb verb, int64_t a, int64_t b,
               int64_t *number)
{
    struct modus_remote_call call = {.request = {.a = a, .b = b}};
    int rc = call_with(remote, verb, &call);

    if (rc == 0 && number)
        *number = call.reply.number;
    return rc;
}

/* A call that writes. */
static int write_value(struct modus_remote *remote, enum modus_wire_verb verb,
                       struct modus_bytes key, int64_t a, struct modus_bytes value, int64_t b)
{
    struct modus_remote_call call = {.request = {.a = a, .b = b}, .key = key, .value = value};

    return call_with(remote, verb, &call);
}

/* A call that reads into memory. */
static long read_value(struct modus_remote *remote, enum modus_wire_verb verb,
                       struct modus_bytes key, int64_t a, void *memory, size_t room, int64_t ns,
                       uint64_t *version)
{
    int64_t b = room > INT64_MAX ? INT64_MAX : (int64_t)room;
    struct modus_remote_call call = {
        .request = {.a = a, .b = b, .ns = ns}, .key = key, .memory = memory, .room = room};
    int rc = call_with(remote, verb, &call);

    if (rc < 0)
        return rc;
    if (version)
        *version = call.reply.value_version;
    return (long)call.reply.number;
}

static const struct modus_bytes no_bytes;

/* --- all kinds ------------------------------------------------------------------------------- */

int modus_remote_open(struct modus_remote *remote, struct modus_client *client,
                      enum modus_remote_kind kind, const char *name, size_t capacity)
{
    struct modus_remote_call call = {
        .request = {.verb = MODUS_WIRE_OPEN,
                    .a = kind,
                    .b = capacity > INT64_MAX ? -1 : (int64_t)capacity},
        .key = modus_str(name)};
    int rc = modus_client_call(client, &call);

    if (rc == 0)
        *remote = (struct modus_remote){client, (uint64_t)call.reply.number};
    return rc;
}

int modus_remote_drop(struct modus_remote *remote)
{
    return ask(remote, MODUS_WIRE_DROP, 0, 0, NULL);
}

long modus_remote_len(struct modus_remote *remote)
{
    int64_t len = 0;
    int rc = ask(remote, MODUS_WIRE_LEN, 0, 0, &len);

    return rc < 0 ? rc : (long)len;
}

int modus_remote_clear(struct modus_remote *remote)
{
    return ask(remote, MODUS_WIRE_CLEAR, 0, 0, NULL);
}

int modus_remote_snapshot(struct modus_remote *remote, struct modus_snapshot *snapshot)
{
    struct modus_snapshot taken = {0};
    struct modus_remote_call call = {.snapshot = &taken};
    int rc = call_with(remote, MODUS_WIRE_SNAPSHOT, &call);

    if (rc == 0)
        *snapshot = taken;
    return rc;
}

/* --- update ---------------------------------------------------------------------------------- */

/* A place in a dict (key) or in a list (index). */
struct place {
    struct modus_bytes key;
    int64_t index;
    bool may_be_new;
};

/* Get, let the function work, and put if nobody has been there meanwhile. Returns -ESTALE or
 * -EEXIST if somebody has. */
static int try_update(struct modus_remote *remote, const struct place *place,
                      unsigned char **memory, size_t *room, modus_update *update, void *context)
{
    uint64_t version = 0;
    long size =
        read_value(remote, MODUS_WIRE_GET, place->key, place->index, *memory, *room, 0, &version);

    if (size == -ENOENT && place->may_be_new)
        size = -1;
    else if (size < 0)
        return (int)size;
    if (size > (long)*room) {
        unsigned char *larger = realloc(*memory, (size_t)size);
        if (!larger)
            return -ENOMEM;
        *memory = larger;
        *room = (size_t)size;
        return -ESTALE;
    }
    size = update(context, *memory, size, *room);
    if (size < 0)
        return size < INT_MIN ? -EINVAL : (int)size;
    if ((size_t)size > *room)
        return -ERANGE;
    return write_value(remote, MODUS_WIRE_PUT_IF, place->key, place->index,
                       modus_bytes(*memory, (size_t)size), (int64_t)version);
}

static int update_place(struct modus_remote *remote, const struct place *place, size_t room,
                        modus_update *update, void *context)
{
    if (!update || room > MODUS_DICT_VALUE_MAX)
        return -EINVAL;
    room = room ? room : 1;
    unsigned char *memory = malloc(room);
    if (!memory)
        return -ENOMEM;
    int rc;
    do
        rc = try_update(remote, place, &memory, &room, update, context);
    while (rc == -ESTALE || rc == -EEXIST);
    free(memory);
    return rc;
}

/* --- dict ------------------------------------------------------------------------------------ */

int modus_remote_dict_put(struct modus_remote *remote, struct modus_bytes key,
                          struct modus_bytes value)
{
    return write_value(remote, MODUS_WIRE_PUT, key, 0, value, 0);
}

int modus_remote_dict_put_if(struct modus_remote *remote, struct modus_bytes key,
                             struct modus_bytes value, uint64_t version)
{
    return write_value(remote, MODUS_WIRE_PUT_IF, key, 0, value, (int64_t)version);
}

long modus_remote_dict_get(struct modus_remote *remote, struct modus_bytes key, void *memory,
                           size_t room, uint64_t *version)
{
    return read_value(remote, MODUS_WIRE_GET, key, 0, memory, room, 0, version);
}

long modus_remote_dict_take(struct modus_remote *remote, struct modus_bytes key, void *memory,
                            size_t room)
{
    return read_value(remote, MODUS_WIRE_TAKE, key, 0, memory, room, 0, NULL);
}

int modus_remote_dict_remove(struct modus_remote *remote, struct modus_bytes key)
{
    return write_value(remote, MODUS_WIRE_REMOVE, key, 0, no_bytes, 0);
}

int modus_remote_dict_update(struct modus_remote *remote, struct modus_bytes key, size_t room,
                             modus_update *update, void *context)
{
    return update_place(remote, &(struct place){.key = key, .may_be_new = true}, room, update,
                        context);
}

/* --- list ------------------------------------------------------------------------------------ */

int modus_remote_list_append(struct modus_remote *remote, struct modus_bytes value)
{
    return modus_remote_list_insert(remote, -1, value);
}

int modus_remote_list_insert(struct modus_remote *remote, long index, struct modus_bytes value)
{
    return write_value(remote, MODUS_WIRE_INSERT, no_bytes, index, value, 0);
}

int modus_remote_list_set(struct modus_remote *remote, long index, struct modus_bytes value)
{
    return write_value(remote, MODUS_WIRE_PUT, no_bytes, index, value, 0);
}

int modus_remote_list_set_if(struct modus_remote *remote, long index, struct modus_bytes value,
                             uint64_t version)
{
    return write_value(remote, MODUS_WIRE_PUT_IF, no_bytes, index, value, (int64_t)version);
}

long modus_remote_list_get(struct modus_remote *remote, long index, void *memory, size_t room,
                           uint64_t *version)
{
    return read_value(remote, MODUS_WIRE_GET, no_bytes, index, memory, room, 0, version);
}

long modus_remote_list_pop(struct modus_remote *remote, long index, void *memory, size_t room)
{
    return read_value(remote, MODUS_WIRE_TAKE, no_bytes, index, memory, room, 0, NULL);
}

int modus_remote_list_update(struct modus_remote *remote, long index, size_t room,
                             modus_update *update, void *context)
{
    return update_place(remote, &(struct place){.index = index}, room, update, context);
}

/* --- value ----------------------------------------------------------------------------------- */

int modus_remote_value_load(struct modus_remote *remote, int64_t *number)
{
    return ask(remote, MODUS_WIRE_LOAD, 0, 0, number);
}

int modus_remote_value_store(struct modus_remote *remote, int64_t number)
{
    return ask(remote, MODUS_WIRE_EXCHANGE, number, 0, NULL);
}

int modus_remote_value_exchange(struct modus_remote *remote, int64_t *number)
{
    return ask(remote, MODUS_WIRE_EXCHANGE, *number, 0, number);
}

int modus_remote_value_add(struct modus_remote *remote, int64_t *number)
{
    return ask(remote, MODUS_WIRE_ADD, *number, 0, number);
}

int modus_remote_value_compare_exchange(struct modus_remote *remote, int64_t *expected,
                                        int64_t number)
{
    int64_t there;
    int rc = ask(remote, MODUS_WIRE_COMPARE, *expected, number, &there);

    if (rc == 0 && there != *expected) {
        *expected = there;
        rc = -ESTALE;
    }
    return rc;
}

static int ask_real(struct modus_remote *remote, enum modus_wire_verb verb, double *number)
{
    int64_t bits;
    int rc = ask(remote, verb, (int64_t)modus_value_bits(*number), 0, &bits);

    if (rc == 0)
        *number = modus_value_real((uint64_t)bits);
    return rc;
}

int modus_remote_value_load_real(struct modus_remote *remote, double *number)
{
    double loaded = 0;
    int rc = ask_real(remote, MODUS_WIRE_LOAD, &loaded);

    if (rc == 0)
        *number = loaded;
    return rc;
}

int modus_remote_value_store_real(struct modus_remote *remote, double number)
{
    return ask_real(remote, MODUS_WIRE_EXCHANGE, &number);
}

int modus_remote_value_add_real(struct modus_remote *remote, double *number)
{
    return ask_real(remote, MODUS_WIRE_ADD_REAL, number);
}

/* --- queue ----------------------------------------------------------------------------------- */

int modus_remote_queue_put(struct modus_remote *remote, struct modus_bytes item, int64_t ns)
{
    struct modus_remote_call call = {.request = {.ns = ns}, .value = item};

    return call_with(remote, MODUS_WIRE_PUSH, &call);
}

long modus_remote_queue_get(struct modus_remote *remote, void *memory, size_t room, int64_t ns)
{
    return read_value(remote, MODUS_WIRE_PULL, no_bytes, 0, memory, room, ns, NULL);
}

int modus_remote_queue_close(struct modus_remote *remote)
{
    return ask(remote, MODUS_WIRE_CLOSE, 0, 0, NULL);
}

/* --- lock ------------------------------------------------------------------------------------ */

int modus_remote_lock_acquire(struct modus_remote *remote, int64_t ns)
{
    struct modus_remote_call call = {.request = {.ns = ns}};
    int rc = call_with(remote, MODUS_WIRE_ACQUIRE, &call);

    return rc == 0 && call.reply.more ? MODUS_OWNERDEAD : rc;
}

int modus_remote_lock_release(struct modus_remote *remote)
{
    return ask(remote, MODUS_WIRE_RELEASE, 0, 0, NULL);
}
