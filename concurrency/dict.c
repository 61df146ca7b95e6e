/* SPDX-License-Identifier: MIT */
/*
 * The table is a block of words, hash << 32 | unit of the entry; 0 is empty, 1 removed. It is
 * replaced when three quarters are filled, by one that fits what lives; if there is no room for
 * that, the old one fills up to the last word.
 *
 * An entry is one block: header, key, value. It never changes but for its links: a new value is a
 * new entry in the old one's place.
 *
 * clear is too long for one transaction: it commits the intent, and then removes key by key. The
 * lock is held meanwhile, and whoever inherits it from the dead goes on (begin).
 */
#include "concurrency/dict.h"

#include <sys/random.h>

enum { EMPTY = 0, REMOVED = 1, CAPACITY_MIN = 8 };

struct root {
    uint64_t table, capacity; /* capacity is a power of two, or 0 */
    uint64_t live, filled;    /* words of the table: with an entry, or that were not empty */
    uint64_t first, last;
    uint64_t packed; /* bytes of a snapshot */
    uint64_t clearing;
};

struct entry {
    uint64_t previous, next, version;
    uint32_t key_size, value_size;
    unsigned char bytes[];
};

_Static_assert(sizeof(struct root) <= MODUS_STORE_ROOT_WORDS * sizeof(uint64_t), "root fits");

/* A place in the table. */
struct place {
    uint64_t hash;
    uint64_t *word; /* the key's, or where it would go; NULL: nowhere */
    uint64_t unit;  /* 0: the key is not there */
    struct entry *entry;
};

static struct root *root_of(struct modus_dict *dict)
{
    return modus_store_root(&dict->store);
}

/* --- looking --------------------------------------------------------------------------------- */

/* Seeded, so that keys do not collide by anybody's design; not a secret kept from those who share
 * the memory. Multiply and fold, eight bytes at a time. */
static uint64_t hash_of(const struct modus_dict *dict, struct modus_bytes key)
{
    const unsigned char *at = key.data;
    uint64_t hash = dict->seed ^ key.size;

    for (size_t left = key.size; left > 0;) {
        size_t n = left < 8 ? left : 8;
        uint64_t chunk = 0;

        memcpy(&chunk, at, n);
        hash = (hash ^ chunk) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 29;
        at += n;
        left -= n;
    }
    hash *= UINT64_C(0xbf58476d1ce4e5b9);
    return (hash ^ hash >> 32) & UINT32_MAX;
}

static struct entry *entry_at(struct modus_dict *dict, uint64_t unit)
{
    struct entry *entry = modus_store_at(&dict->store, unit, sizeof *entry);

    if (!entry || !modus_store_at(&dict->store, unit,
                                  sizeof *entry + (size_t)entry->key_size + entry->value_size))
        return NULL;
    return entry;
}

static struct modus_bytes key_of(const struct entry *entry)
{
    return modus_bytes(entry->bytes, entry->key_size);
}

static struct modus_bytes value_of(const struct entry *entry)
{
    return modus_bytes(entry->bytes + entry->key_size, entry->value_size);
}

static bool equal(struct modus_bytes a, struct modus_bytes b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* The table's words, or NULL when there is none. */
static uint64_t *table_of(struct modus_dict *dict)
{
    struct root *root = root_of(dict);

    if (root->capacity == 0)
        return NULL;
    uint64_t *table = NULL;
    if ((root->capacity & (root->capacity - 1)) == 0 && root->capacity <= dict->store.units * 4)
        table = modus_store_at(&dict->store, root->table, (size_t)root->capacity * sizeof *table);
    if (!table)
        modus_store_break(&dict->store);
    return table;
}

/* Find key. Returns 0 or MODUS_NOTRECOVERABLE. */
static int find(struct modus_dict *dict, struct modus_bytes key, struct place *place)
{
    uint64_t *table = table_of(dict), capacity = root_of(dict)->capacity;

    *place = (struct place){.hash = hash_of(dict, key)};
    for (uint64_t i = 0; table && i < capacity; i++) {
        uint64_t *word = &table[(place->hash + i) & (capacity - 1)], unit = *word & UINT32_MAX;

        if (*word == EMPTY || *word == REMOVED) {
            if (!place->word)
                place->word = word;
            if (*word == EMPTY)
                return 0;
        } else if (*word >> 32 == place->hash) {
            struct entry *entry = entry_at(dict, unit);

            if (!entry)
                return modus_store_break(&dict->store);
            if (equal(key_of(entry), key)) {
                *place = (struct place){place->hash, word, unit, entry};
                return 0;
            }
        }
    }
    return root_of(dict)->capacity && !table ? MODUS_NOTRECOVERABLE : 0;
}

/* --- changing, inside a transaction ---------------------------------------------------------- */

static void set(struct modus_dict *dict, uint64_t *word, uint64_t value)
{
    modus_store_set(&dict->store, word, value);
}

/* Let the neighbours of an entry in the order point to the units given. */
static int link_neighbours(struct modus_dict *dict, const struct entry *entry, uint64_t next,
                           uint64_t previous)
{
    struct root *root = root_of(dict);
    struct entry *before = entry->previous ? entry_at(dict, entry->previous) : NULL;
    struct entry *after = entry->next ? entry_at(dict, entry->next) : NULL;

    if ((entry->previous && !before) || (entry->next && !after))
        return modus_store_break(&dict->store);
    set(dict, before ? &before->next : &root->first, next);
    set(dict, after ? &after->previous : &root->last, previous);
    return 0;
}

static void count_packed(struct modus_dict *dict, const struct entry *entry, bool more)
{
    uint64_t n = MODUS_SNAPSHOT_ITEM + (uint64_t)entry->key_size + entry->value_size;

    set(dict, &root_of(dict)->packed, root_of(dict)->packed + (more ? n : -n));
}

/* Fill a fresh table with what is in the old one. */
static void rehash(const uint64_t *old, uint64_t old_capacity, uint64_t *table, uint64_t capacity)
{
    memset(table, 0, (size_t)capacity * sizeof *table);
    for (uint64_t i = 0; i < old_capacity; i++)
        if (old[i] != EMPTY && old[i] != REMOVED) {
            uint64_t at = old[i] >> 32, probes = 0;

            while (table[at & (capacity - 1)] != EMPTY && ++probes < capacity)
                at++;
            table[at & (capacity - 1)] = old[i];
        }
}

/* Replace the table. Returns the old one's unit in *old, to be freed last; 0 or -ENOMEM. */
static int replace_table(struct modus_dict *dict, uint64_t *old)
{
    struct root *root = root_of(dict);
    uint64_t *table = table_of(dict), capacity = CAPACITY_MIN;

    while (capacity < (root->live + 1) * 2)
        capacity *= 2;
    if (root->live > dict->store.units || capacity > UINT32_MAX)
        return -ENOMEM;
    uint64_t unit = modus_store_alloc(&dict->store, (size_t)capacity * sizeof *table);
    uint64_t *fresh = modus_store_at(&dict->store, unit, (size_t)capacity * sizeof *table);
    if (!fresh)
        return -ENOMEM;
    rehash(table, table ? root->capacity : 0, fresh, capacity);
    *old = root->table;
    set(dict, &root->table, unit);
    set(dict, &root->capacity, capacity);
    set(dict, &root->filled, root->live);
    return 0;
}

/* Let a new key have the fresh entry. */
static int insert(struct modus_dict *dict, struct modus_bytes key, struct place *place,
                  uint64_t unit, struct entry *entry)
{
    struct root *root = root_of(dict);
    uint64_t old = 0;

    if (!place->word || (root->filled + 1) * 4 > root->capacity * 3) {
        if (replace_table(dict, &old) == 0)
            find(dict, key, place);
        if (!place->word)
            return -ENOMEM;
    }
    entry->previous = root->last;
    entry->next = 0;
    if (link_neighbours(dict, entry, unit, unit) < 0)
        return MODUS_NOTRECOVERABLE;
    set(dict, &root->live, root->live + 1);
    if (*place->word == EMPTY)
        set(dict, &root->filled, root->filled + 1);
    set(dict, place->word, place->hash << 32 | unit);
    count_packed(dict, entry, true);
    if (old != 0)
        modus_store_free(&dict->store, old);
    return 0;
}

/* Let a key that there is have the fresh entry. */
static int replace(struct modus_dict *dict, const struct place *place, uint64_t unit,
                   struct entry *entry)
{
    entry->previous = place->entry->previous;
    entry->next = place->entry->next;
    if (link_neighbours(dict, entry, unit, unit) < 0)
        return MODUS_NOTRECOVERABLE;
    set(dict, place->word, place->hash << 32 | unit);
    count_packed(dict, place->entry, false);
    count_packed(dict, entry, true);
    modus_store_free(&dict->store, place->unit);
    return 0;
}

static int erase(struct modus_dict *dict, const struct place *place)
{
    struct entry *entry = place->entry;

    if (link_neighbours(dict, entry, entry->next, entry->previous) < 0)
        return MODUS_NOTRECOVERABLE;
    set(dict, place->word, REMOVED);
    set(dict, &root_of(dict)->live, root_of(dict)->live - 1);
    count_packed(dict, entry, false);
    modus_store_free(&dict->store, place->unit);
    return 0;
}

/* A block for an entry with that key; the value is still to be written. */
static struct entry *new_entry(struct modus_dict *dict, struct modus_bytes key, size_t value_size,
                               uint64_t *unit)
{
    size_t bytes = sizeof(struct entry) + key.size + value_size;

    *unit = modus_store_alloc(&dict->store, bytes);
    struct entry *entry = modus_store_at(&dict->store, *unit, bytes);
    if (!entry || *unit > UINT32_MAX)
        return NULL;
    entry->version = modus_store_version(&dict->store);
    entry->key_size = (uint32_t)key.size;
    entry->value_size = (uint32_t)value_size;
    if (key.size)
        memcpy(entry->bytes, key.data, key.size);
    return entry;
}

/* --- transactions ---------------------------------------------------------------------------- */

static int end(struct modus_dict *dict, int rc)
{
    if (rc == 0)
        rc = modus_store_commit(&dict->store);
    else
        modus_store_undo(&dict->store);
    modus_store_end(&dict->store);
    return rc;
}

/* Remove key by key, each in a transaction, and at last the table. */
static int go_on_clearing(struct modus_dict *dict)
{
    struct root *root = root_of(dict);
    int rc = 0;

    while (rc == 0 && root->first != 0) {
        struct entry *entry = entry_at(dict, root->first);
        struct place place = {0};

        if (!entry || find(dict, key_of(entry), &place) < 0 || place.entry != entry)
            return modus_store_break(&dict->store);
        rc = erase(dict, &place);
        if (rc == 0)
            rc = modus_store_commit(&dict->store);
    }
    if (rc < 0)
        return rc;
    uint64_t table = root->table;
    set(dict, &root->table, 0);
    set(dict, &root->capacity, 0);
    set(dict, &root->filled, 0);
    set(dict, &root->clearing, 0);
    if (table != 0)
        modus_store_free(&dict->store, table);
    return modus_store_commit(&dict->store);
}

static int begin(struct modus_dict *dict)
{
    int rc = modus_store_begin(&dict->store);

    if (rc < 0 || !root_of(dict)->clearing)
        return rc;
    rc = go_on_clearing(dict); /* who began it is dead */
    if (rc < 0)
        modus_store_end(&dict->store);
    return rc;
}

/* Begin, and find key. */
static int begin_at(struct modus_dict *dict, struct modus_bytes key, struct place *place)
{
    if (key.size > MODUS_DICT_KEY_MAX)
        return -EINVAL;
    int rc = begin(dict);
    if (rc < 0)
        return rc;
    rc = find(dict, key, place);
    if (rc < 0)
        modus_store_end(&dict->store);
    return rc;
}

/* --- calls ----------------------------------------------------------------------------------- */

int modus_dict_init(struct modus_dict *dict, const struct modus_dict_attr *attr)
{
    int rc = modus_store_init(&dict->store, attr->scope, attr->arena, attr->bytes);

    if (rc == 0 && getrandom(&dict->seed, sizeof dict->seed, 0) != sizeof dict->seed)
        dict->seed = (uint64_t)modus_now_ns();
    return rc;
}

void modus_dict_fini(struct modus_dict *dict)
{
    modus_store_fini(&dict->store);
}

static int put(struct modus_dict *dict, struct modus_bytes key, struct modus_bytes value,
               struct place *place)
{
    uint64_t unit;
    struct entry *entry = new_entry(dict, key, value.size, &unit);

    if (!entry)
        return -ENOMEM;
    if (value.size)
        memcpy(entry->bytes + key.size, value.data, value.size);
    return place->unit ? replace(dict, place, unit, entry) : insert(dict, key, place, unit, entry);
}

int modus_dict_put(struct modus_dict *dict, struct modus_bytes key, struct modus_bytes value)
{
    struct place place;

    if (value.size > MODUS_DICT_VALUE_MAX)
        return -EINVAL;
    int rc = begin_at(dict, key, &place);
    return rc < 0 ? rc : end(dict, put(dict, key, value, &place));
}

int modus_dict_put_if(struct modus_dict *dict, struct modus_bytes key, struct modus_bytes value,
                      uint64_t version)
{
    struct place place;

    if (value.size > MODUS_DICT_VALUE_MAX)
        return -EINVAL;
    int rc = begin_at(dict, key, &place);
    if (rc < 0)
        return rc;
    if (version == 0 && place.unit)
        rc = -EEXIST;
    else if (version != 0 && (!place.unit || place.entry->version != version))
        rc = -ESTALE;
    else
        rc = put(dict, key, value, &place);
    return end(dict, rc);
}

/* Copy a value out if it fits. Returns its size. */
static long copy_out(struct modus_bytes value, void *memory, size_t room)
{
    if (value.size && value.size <= room)
        memcpy(memory, value.data, value.size);
    return (long)value.size;
}

long modus_dict_get(struct modus_dict *dict, struct modus_bytes key, void *memory, size_t room,
                    uint64_t *version)
{
    struct place place;
    long rc = begin_at(dict, key, &place);

    if (rc < 0)
        return rc;
    rc = place.unit ? copy_out(value_of(place.entry), memory, room) : -ENOENT;
    if (place.unit && version)
        *version = place.entry->version;
    modus_store_end(&dict->store);
    return rc;
}

long modus_dict_take(struct modus_dict *dict, struct modus_bytes key, void *memory, size_t room)
{
    struct place place;
    long size = begin_at(dict, key, &place);

    if (size < 0)
        return size;
    size = place.unit ? copy_out(value_of(place.entry), memory, room) : -ENOENT;
    if (size < 0 || (size_t)size > room) {
        modus_store_end(&dict->store);
        return size;
    }
    int rc = end(dict, erase(dict, &place));
    return rc < 0 ? rc : size;
}

int modus_dict_remove(struct modus_dict *dict, struct modus_bytes key)
{
    struct place place;
    int rc = begin_at(dict, key, &place);

    return rc < 0 ? rc : end(dict, place.unit ? erase(dict, &place) : -ENOENT);
}

static int update_at(struct modus_dict *dict, struct modus_bytes key, size_t room,
                     struct place *place, modus_update *update, void *context)
{
    struct modus_bytes old = place->unit ? value_of(place->entry) : modus_bytes(NULL, 0);
    uint64_t unit;

    room = old.size > room ? old.size : room;
    struct entry *entry = new_entry(dict, key, room, &unit);
    if (!entry)
        return -ENOMEM;
    void *value = entry->bytes + key.size;
    if (old.size)
        memcpy(value, old.data, old.size);
    long size = update(context, value, place->unit ? (long)old.size : -1, room);
    if (!modus_store_mine(&dict->store))
        return -ECHILD;
    if (size < 0)
        return size < INT32_MIN ? -EINVAL : (int)size;
    if ((size_t)size > room)
        return -ERANGE;
    entry->value_size = (uint32_t)size;
    modus_store_trim(&dict->store, unit, sizeof *entry + key.size + (size_t)size);
    return place->unit ? replace(dict, place, unit, entry) : insert(dict, key, place, unit, entry);
}

int modus_dict_update(struct modus_dict *dict, struct modus_bytes key, size_t room,
                      modus_update *update, void *context)
{
    struct place place;

    if (room > MODUS_DICT_VALUE_MAX || !update)
        return -EINVAL;
    int rc = begin_at(dict, key, &place);
    if (rc < 0)
        return rc;
    rc = update_at(dict, key, room, &place, update, context);
    return modus_store_mine(&dict->store) ? end(dict, rc) : rc;
}

long modus_dict_len(struct modus_dict *dict)
{
    long rc = begin(dict);

    if (rc < 0)
        return rc;
    rc = (long)root_of(dict)->live;
    modus_store_end(&dict->store);
    return rc < 0 ? MODUS_NOTRECOVERABLE : rc;
}

int modus_dict_clear(struct modus_dict *dict)
{
    int rc = begin(dict);

    if (rc < 0)
        return rc;
    set(dict, &root_of(dict)->clearing, 1);
    rc = modus_store_commit(&dict->store);
    if (rc == 0)
        rc = go_on_clearing(dict);
    modus_store_end(&dict->store);
    return rc;
}

/* --- all of it ------------------------------------------------------------------------------- */

/* Write all entries to memory, size bytes. */
static int pack(struct modus_dict *dict, unsigned char *memory, uint64_t size)
{
    unsigned char *to = memory;

    for (uint64_t unit = root_of(dict)->first; unit != 0;) {
        struct entry *entry = entry_at(dict, unit);

        if (!entry)
            return modus_store_break(&dict->store);
        struct modus_bytes key = key_of(entry), value = value_of(entry);
        if (MODUS_SNAPSHOT_ITEM + key.size + value.size > size - (uint64_t)(to - memory))
            return modus_store_break(&dict->store);
        to = modus_snapshot_item(to, key, value);
        unit = entry->next;
    }
    return (uint64_t)(to - memory) == size ? 0 : modus_store_break(&dict->store);
}

long modus_dict_pack(struct modus_dict *dict, void *memory, size_t room)
{
    long rc = begin(dict);

    if (rc < 0)
        return rc;
    uint64_t size = root_of(dict)->packed;
    if (size > dict->store.units * MODUS_STORE_UNIT)
        rc = modus_store_break(&dict->store);
    else if (size <= room)
        rc = pack(dict, memory, size);
    modus_store_end(&dict->store);
    return rc < 0 ? rc : (long)size;
}

static long pack_dict(void *context, void *memory, size_t room)
{
    return modus_dict_pack(context, memory, room);
}

int modus_dict_snapshot(struct modus_dict *dict, struct modus_snapshot *snapshot)
{
    return modus_snapshot_take(snapshot, pack_dict, dict);
}

/* Every entry can be found, the links agree, and the sums are right. */
static int check_entries(struct modus_dict *dict)
{
    struct root *root = root_of(dict);
    uint64_t n = 0, previous = 0, packed = 0, unit = root->first;
    size_t used = root->capacity ? modus_store_size(&dict->store, root->table) : 0;

    for (; unit != 0; n++) {
        struct entry *entry = entry_at(dict, unit);
        struct place place;

        if (!entry || n >= root->live || entry->previous != previous ||
            find(dict, key_of(entry), &place) < 0 || place.unit != unit)
            return modus_store_break(&dict->store);
        packed += MODUS_SNAPSHOT_ITEM + (uint64_t)entry->key_size + entry->value_size;
        used += modus_store_size(&dict->store, unit);
        previous = unit;
        unit = entry->next;
    }
    if (n != root->live || previous != root->last || packed != root->packed ||
        used != modus_store_used(&dict->store))
        return modus_store_break(&dict->store);
    return 0;
}

static int check_table(struct modus_dict *dict)
{
    struct root *root = root_of(dict);
    uint64_t *table = table_of(dict), live = 0, filled = 0;

    for (uint64_t i = 0; table && i < root->capacity; i++) {
        live += table[i] > REMOVED;
        filled += table[i] != EMPTY;
    }
    return live == root->live && filled == root->filled ? 0 : modus_store_break(&dict->store);
}

int modus_dict_check(struct modus_dict *dict)
{
    int rc = begin(dict);

    if (rc < 0)
        return rc;
    rc = modus_store_check(&dict->store);
    if (rc == 0)
        rc = check_entries(dict);
    if (rc == 0)
        rc = check_table(dict);
    modus_store_end(&dict->store);
    return rc;
}

size_t modus_dict_used(const struct modus_dict *dict)
{
    return dict->store.scope == 0 ? 0 : modus_store_used(&dict->store);
}
