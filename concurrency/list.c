/* SPDX-License-Identifier: MIT */
/*
 * A ring of units: value i is in the word at (head + i) & (capacity - 1). head just counts on, or
 * down. The ring is doubled when it is full. A value is one block, and never changes: a new value
 * is a new block in the same word.
 *
 * clear commits the intent and then removes value by value, as a dict's does.
 */
#include "concurrency/list.h"

enum { CAPACITY_MIN = 8 };

struct root {
    uint64_t ring, capacity; /* capacity is a power of two, or 0 */
    uint64_t head, len;
    uint64_t packed; /* bytes of a snapshot */
    uint64_t clearing;
};

struct value {
    uint64_t version;
    uint64_t size;
    unsigned char bytes[];
};

_Static_assert(sizeof(struct root) <= MODUS_STORE_ROOT_WORDS * sizeof(uint64_t), "root fits");

static struct root *root_of(struct modus_list *list)
{
    return modus_store_root(&list->store);
}

/* --- looking --------------------------------------------------------------------------------- */

static struct value *value_at(struct modus_list *list, uint64_t unit)
{
    struct value *value = modus_store_at(&list->store, unit, sizeof *value);

    if (!value || value->size > MODUS_LIST_VALUE_MAX ||
        !modus_store_at(&list->store, unit, sizeof *value + (size_t)value->size)) {
        modus_store_break(&list->store);
        return NULL;
    }
    return value;
}

/* The ring's words; NULL when there is none. */
static uint64_t *ring_of(struct modus_list *list)
{
    struct root *root = root_of(list);
    uint64_t *ring = NULL;

    if (root->capacity == 0 && root->len == 0)
        return NULL;
    if ((root->capacity & (root->capacity - 1)) == 0 && root->capacity <= list->store.units * 4 &&
        root->len <= root->capacity)
        ring = modus_store_at(&list->store, root->ring, (size_t)root->capacity * sizeof *ring);
    if (!ring)
        modus_store_break(&list->store);
    return ring;
}

/* The word of value i, which is below len. */
static uint64_t *word_at(struct modus_list *list, uint64_t i)
{
    struct root *root = root_of(list);
    uint64_t *ring = ring_of(list);

    return ring ? &ring[(root->head + i) & (root->capacity - 1)] : NULL;
}

/* A value, with where it was found. */
struct found {
    uint64_t i;
    uint64_t *word;
    struct value *value;
};

/* Find the value at index. Returns 0, -ENOENT or MODUS_NOTRECOVERABLE. */
static int find(struct modus_list *list, long index, struct found *found)
{
    uint64_t len = root_of(list)->len;
    uint64_t i = index < 0 ? len + (uint64_t)index : (uint64_t)index;

    if (i >= len)
        return -ENOENT;
    uint64_t *word = word_at(list, i);
    struct value *value = word ? value_at(list, *word) : NULL;
    if (!value)
        return MODUS_NOTRECOVERABLE;
    *found = (struct found){i, word, value};
    return 0;
}

/* --- changing, inside a transaction ---------------------------------------------------------- */

static void set(struct modus_list *list, uint64_t *word, uint64_t value)
{
    modus_store_set(&list->store, word, value);
}

static void count_packed(struct modus_list *list, const struct value *value, bool more)
{
    uint64_t n = MODUS_SNAPSHOT_ITEM + value->size;

    set(list, &root_of(list)->packed, root_of(list)->packed + (more ? n : -n));
}

/* A block for a value; its bytes are still to be written. */
static struct value *new_value(struct modus_list *list, size_t size, uint64_t *unit)
{
    *unit = modus_store_alloc(&list->store, sizeof(struct value) + size);
    struct value *value = modus_store_at(&list->store, *unit, sizeof *value + size);
    if (!value)
        return NULL;
    value->version = modus_store_version(&list->store);
    value->size = size;
    return value;
}

static struct value *copy_in(struct modus_list *list, struct modus_bytes bytes, uint64_t *unit)
{
    struct value *value = new_value(list, bytes.size, unit);

    if (value && bytes.size)
        memcpy(value->bytes, bytes.data, bytes.size);
    return value;
}

/* Double the ring. Returns the old one's unit in *old, to be freed last; 0 or a code. */
static int grow(struct modus_list *list, uint64_t *old)
{
    struct root *root = root_of(list);
    uint64_t *ring = ring_of(list);
    uint64_t capacity = root->capacity ? root->capacity * 2 : CAPACITY_MIN;

    if (root->capacity && !ring)
        return MODUS_NOTRECOVERABLE;
    uint64_t unit = modus_store_alloc(&list->store, (size_t)capacity * sizeof *ring);
    uint64_t *fresh = modus_store_at(&list->store, unit, (size_t)capacity * sizeof *ring);
    if (!fresh)
        return -ENOMEM;
    for (uint64_t i = 0; i < root->len && i < capacity; i++)
        fresh[i] = ring[(root->head + i) & (root->capacity - 1)];
    *old = root->ring;
    set(list, &root->ring, unit);
    set(list, &root->capacity, capacity);
    set(list, &root->head, 0);
    return 0;
}

/* Make room for a value at i, on the side where less has to move. */
static void open_gap(struct modus_list *list, uint64_t i)
{
    struct root *root = root_of(list);
    uint64_t head = root->head, mask = root->capacity - 1;

    if (i < root->len / 2) {
        modus_store_shift(&list->store, root->ring, mask, head - 1, head - 1 + i);
        set(list, &root->head, head - 1);
    } else {
        modus_store_shift(&list->store, root->ring, mask, head + root->len, head + i);
    }
    set(list, &root->len, root->len + 1);
}

static void close_gap(struct modus_list *list, uint64_t i)
{
    struct root *root = root_of(list);
    uint64_t head = root->head, mask = root->capacity - 1;

    if (i < root->len / 2) {
        modus_store_shift(&list->store, root->ring, mask, head + i, head);
        set(list, &root->head, head + 1);
    } else {
        modus_store_shift(&list->store, root->ring, mask, head + i, head + root->len - 1);
    }
    set(list, &root->len, root->len - 1);
}

static int insert(struct modus_list *list, long index, struct modus_bytes bytes)
{
    struct root *root = root_of(list);
    uint64_t i = index < 0 ? root->len + 1 + (uint64_t)index : (uint64_t)index;
    uint64_t unit, old = 0;

    if (i > root->len)
        return -ENOENT;
    struct value *value = copy_in(list, bytes, &unit);
    int rc = value ? 0 : -ENOMEM;
    if (rc == 0 && root->len >= root->capacity)
        rc = grow(list, &old);
    if (rc < 0)
        return rc;
    open_gap(list, i);
    uint64_t *word = word_at(list, i);
    if (!word)
        return MODUS_NOTRECOVERABLE;
    set(list, word, unit);
    count_packed(list, value, true);
    if (old != 0)
        modus_store_free(&list->store, old);
    return 0;
}

static void erase(struct modus_list *list, const struct found *found)
{
    uint64_t unit = *found->word;

    set(list, found->word, 0); /* notes it: the shift writes over it */
    close_gap(list, found->i);
    count_packed(list, found->value, false);
    modus_store_free(&list->store, unit);
}

static void replace(struct modus_list *list, const struct found *found, uint64_t unit,
                    const struct value *value)
{
    uint64_t old = *found->word;

    set(list, found->word, unit);
    count_packed(list, found->value, false);
    count_packed(list, value, true);
    modus_store_free(&list->store, old);
}

/* --- transactions ---------------------------------------------------------------------------- */

static int end(struct modus_list *list, int rc)
{
    if (rc == 0)
        rc = modus_store_commit(&list->store);
    else
        modus_store_undo(&list->store);
    modus_store_end(&list->store);
    return rc;
}

/* Remove value by value, each in a transaction, and at last the ring. */
static int go_on_clearing(struct modus_list *list)
{
    struct root *root = root_of(list);
    struct found found;
    int rc = 0;

    while (rc == 0 && (rc = find(list, -1, &found)) == 0) {
        erase(list, &found);
        rc = modus_store_commit(&list->store);
    }
    if (rc != -ENOENT)
        return rc;
    uint64_t ring = root->ring;
    set(list, &root->ring, 0);
    set(list, &root->capacity, 0);
    set(list, &root->clearing, 0);
    if (ring != 0)
        modus_store_free(&list->store, ring);
    return modus_store_commit(&list->store);
}

static int begin(struct modus_list *list)
{
    int rc = modus_store_begin(&list->store);

    if (rc < 0 || !root_of(list)->clearing)
        return rc;
    rc = go_on_clearing(list); /* who began it is dead */
    if (rc < 0)
        modus_store_end(&list->store);
    return rc;
}

/* Begin, and find the value at index. */
static int begin_at(struct modus_list *list, long index, struct found *found)
{
    int rc = begin(list);

    if (rc < 0)
        return rc;
    rc = find(list, index, found);
    if (rc < 0)
        modus_store_end(&list->store);
    return rc;
}

/* --- calls ----------------------------------------------------------------------------------- */

int modus_list_init(struct modus_list *list, const struct modus_list_attr *attr)
{
    return modus_store_init(&list->store, attr->scope, attr->arena, attr->bytes);
}

void modus_list_fini(struct modus_list *list)
{
    modus_store_fini(&list->store);
}

int modus_list_insert(struct modus_list *list, long index, struct modus_bytes value)
{
    if (value.size > MODUS_LIST_VALUE_MAX)
        return -EINVAL;
    int rc = begin(list);
    return rc < 0 ? rc : end(list, insert(list, index, value));
}

int modus_list_append(struct modus_list *list, struct modus_bytes value)
{
    return modus_list_insert(list, -1, value);
}

/* version 0: any. */
static int set_value(struct modus_list *list, long index, struct modus_bytes bytes,
                     uint64_t version)
{
    struct found found;
    uint64_t unit;

    if (bytes.size > MODUS_LIST_VALUE_MAX)
        return -EINVAL;
    int rc = begin_at(list, index, &found);
    if (rc < 0)
        return rc;
    if (version != 0 && found.value->version != version)
        return end(list, -ESTALE);
    struct value *value = copy_in(list, bytes, &unit);
    if (!value)
        return end(list, -ENOMEM);
    replace(list, &found, unit, value);
    return end(list, 0);
}

int modus_list_set(struct modus_list *list, long index, struct modus_bytes value)
{
    return set_value(list, index, value, 0);
}

int modus_list_set_if(struct modus_list *list, long index, struct modus_bytes value,
                      uint64_t version)
{
    return version == 0 ? -ESTALE : set_value(list, index, value, version);
}

/* Copy a value out if it fits. Returns its size. */
static long copy_out(const struct value *value, void *memory, size_t room)
{
    size_t size = (size_t)value->size;

    if (size && size <= room)
        memcpy(memory, value->bytes, size);
    return (long)size;
}

long modus_list_get(struct modus_list *list, long index, void *memory, size_t room,
                    uint64_t *version)
{
    struct found found;
    long rc = begin_at(list, index, &found);

    if (rc < 0)
        return rc;
    rc = copy_out(found.value, memory, room);
    if (version)
        *version = found.value->version;
    modus_store_end(&list->store);
    return rc;
}

long modus_list_pop(struct modus_list *list, long index, void *memory, size_t room)
{
    struct found found;
    long size = begin_at(list, index, &found);

    if (size < 0)
        return size;
    size = copy_out(found.value, memory, room);
    if ((size_t)size > room) {
        modus_store_end(&list->store);
        return size;
    }
    erase(list, &found);
    int rc = end(list, 0);
    return rc < 0 ? rc : size;
}

int modus_list_remove(struct modus_list *list, long index)
{
    struct found found;
    int rc = begin_at(list, index, &found);

    if (rc < 0)
        return rc;
    erase(list, &found);
    return end(list, 0);
}

static int update_at(struct modus_list *list, size_t room, const struct found *found,
                     modus_update *update, void *context)
{
    size_t old = (size_t)found->value->size;
    uint64_t unit;

    room = old > room ? old : room;
    struct value *value = new_value(list, room, &unit);
    if (!value)
        return -ENOMEM;
    memcpy(value->bytes, found->value->bytes, old);
    long size = update(context, value->bytes, (long)old, room);
    if (!modus_store_mine(&list->store))
        return -ECHILD;
    if (size < 0)
        return size < INT32_MIN ? -EINVAL : (int)size;
    if ((size_t)size > room)
        return -ERANGE;
    value->size = (uint64_t)size;
    modus_store_trim(&list->store, unit, sizeof *value + (size_t)size);
    replace(list, found, unit, value);
    return 0;
}

int modus_list_update(struct modus_list *list, long index, size_t room, modus_update *update,
                      void *context)
{
    struct found found;

    if (room > MODUS_LIST_VALUE_MAX || !update)
        return -EINVAL;
    int rc = begin_at(list, index, &found);
    if (rc < 0)
        return rc;
    rc = update_at(list, room, &found, update, context);
    return modus_store_mine(&list->store) ? end(list, rc) : rc;
}

long modus_list_len(struct modus_list *list)
{
    long rc = begin(list);

    if (rc < 0)
        return rc;
    rc = (long)root_of(list)->len;
    modus_store_end(&list->store);
    return rc < 0 ? MODUS_NOTRECOVERABLE : rc;
}

int modus_list_clear(struct modus_list *list)
{
    int rc = begin(list);

    if (rc < 0)
        return rc;
    set(list, &root_of(list)->clearing, 1);
    rc = modus_store_commit(&list->store);
    if (rc == 0)
        rc = go_on_clearing(list);
    modus_store_end(&list->store);
    return rc;
}

/* --- all of it ------------------------------------------------------------------------------- */

/* Write all values to memory, size bytes. */
static int pack(struct modus_list *list, unsigned char *memory, uint64_t size)
{
    unsigned char *to = memory;
    struct found found;

    for (long i = 0; i < (long)root_of(list)->len; i++) {
        if (find(list, i, &found) < 0)
            return MODUS_NOTRECOVERABLE;
        struct modus_bytes value = modus_bytes(found.value->bytes, (size_t)found.value->size);
        if (MODUS_SNAPSHOT_ITEM + value.size > size - (uint64_t)(to - memory))
            return modus_store_break(&list->store);
        to = modus_snapshot_item(to, modus_bytes(NULL, 0), value);
    }
    return (uint64_t)(to - memory) == size ? 0 : modus_store_break(&list->store);
}

long modus_list_pack(struct modus_list *list, void *memory, size_t room)
{
    long rc = begin(list);

    if (rc < 0)
        return rc;
    uint64_t size = root_of(list)->packed;
    if (size > list->store.units * MODUS_STORE_UNIT)
        rc = modus_store_break(&list->store);
    else if (size <= room)
        rc = pack(list, memory, size);
    modus_store_end(&list->store);
    return rc < 0 ? rc : (long)size;
}

static long pack_list(void *context, void *memory, size_t room)
{
    return modus_list_pack(context, memory, room);
}

int modus_list_snapshot(struct modus_list *list, struct modus_snapshot *snapshot)
{
    return modus_snapshot_take(snapshot, pack_list, list);
}

/* Every value is there, and the sums are right. */
static int check_values(struct modus_list *list)
{
    struct root *root = root_of(list);
    size_t used = root->capacity ? modus_store_size(&list->store, root->ring) : 0;
    uint64_t packed = 0;
    struct found found;

    if (root->len > root->capacity)
        return modus_store_break(&list->store);
    for (uint64_t i = 0; i < root->len; i++) {
        if (find(list, (long)i, &found) < 0)
            return modus_store_break(&list->store);
        packed += MODUS_SNAPSHOT_ITEM + found.value->size;
        used += modus_store_size(&list->store, *found.word);
    }
    if (packed != root->packed || used != modus_store_used(&list->store))
        return modus_store_break(&list->store);
    return 0;
}

int modus_list_check(struct modus_list *list)
{
    int rc = begin(list);

    if (rc < 0)
        return rc;
    rc = modus_store_check(&list->store);
    if (rc == 0)
        rc = check_values(list);
    modus_store_end(&list->store);
    return rc;
}

size_t modus_list_used(const struct modus_list *list)
{
    return list->store.scope == 0 ? 0 : modus_store_used(&list->store);
}
