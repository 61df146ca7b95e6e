/* SPDX-License-Identifier: MIT */
/*
 * What a manager holds, and the verbs on it. One thread does it all, so every verb is one step; one
 * that has to wait is simply tried again when its object has changed.
 *
 * Dicts and lists are those of dict.h and list.h, in thread scope. A queue is a list of items that
 * are allocated one by one: an item in the hands of a client that dies goes back whatever happens.
 */
#include "concurrency/manager_priv.h"
#include "concurrency/value.h"

#include <stdlib.h>
#include <string.h>

/* --- the table ------------------------------------------------------------------------------- */

struct modus_object *modus_objects_find(struct modus_manager_objects *objects, uint64_t id)
{
    uint64_t i = id & 0xffff;

    if (i == 0 || i > objects->max || !objects->table || !objects->table[i - 1])
        return NULL;
    return objects->table[i - 1]->id == id ? objects->table[i - 1] : NULL;
}

static struct modus_object *find_name(struct modus_manager_objects *objects,
                                      struct modus_bytes name)
{
    for (unsigned i = 0; i < objects->max; i++) {
        struct modus_object *object = objects->table[i];

        if (object && strlen(object->name) == name.size &&
            memcmp(object->name, name.data, name.size) == 0)
            return object;
    }
    return NULL;
}

static int init(struct modus_manager_objects *objects, struct modus_object *object,
                uint64_t capacity)
{
    size_t bytes = objects->limits.object_bytes;

    switch (object->kind) {
    case MODUS_REMOTE_DICT:
        return modus_dict_init(&object->dict,
                               &(struct modus_dict_attr){.scope = MODUS_THREAD, .bytes = bytes});
    case MODUS_REMOTE_LIST:
        return modus_list_init(&object->list,
                               &(struct modus_list_attr){.scope = MODUS_THREAD, .bytes = bytes});
    case MODUS_REMOTE_QUEUE:
        object->queue.last = &object->queue.first;
        object->queue.capacity = capacity;
        return capacity > 0 ? 0 : -EINVAL;
    case MODUS_REMOTE_VALUE:
    case MODUS_REMOTE_LOCK:
        return 0;
    }
    return -EINVAL;
}

static int open_new(struct modus_manager_objects *objects, const struct modus_turn *turn,
                    struct modus_object **made)
{
    unsigned i = 0;

    while (i < objects->max && objects->table[i])
        i++;
    struct modus_object *object = i < objects->max ? calloc(1, sizeof *object) : NULL;
    if (!object)
        return -ENOMEM;
    object->kind = (enum modus_remote_kind)turn->request.a;
    object->id = ++objects->generation << 16 | (i + 1);
    object->last = &object->first;
    memcpy(object->name, turn->key.data, turn->key.size);
    int rc = init(objects, object, (uint64_t)turn->request.b);
    if (rc < 0) {
        free(object);
        return rc;
    }
    *made = objects->table[i] = object;
    return 0;
}

static int open_object(struct modus_manager_objects *objects, struct modus_turn *turn)
{
    int64_t kind = turn->request.a;

    if (turn->key.size == 0 || turn->key.size > MODUS_WIRE_NAME_MAX ||
        memchr(turn->key.data, 0, turn->key.size) || kind < MODUS_REMOTE_DICT ||
        kind > MODUS_REMOTE_LOCK || turn->request.b < 0)
        return -EINVAL;
    struct modus_object *object = find_name(objects, turn->key);
    int rc = 0;
    if (!object)
        rc = open_new(objects, turn, &object);
    else if (object->kind != (enum modus_remote_kind)kind)
        rc = -EEXIST;
    if (rc == 0)
        turn->reply.number = (int64_t)object->id;
    return rc;
}

static void clear_queue(struct modus_manager_queue *queue)
{
    while (queue->first) {
        struct modus_manager_item *item = queue->first;

        queue->first = item->next;
        free(item);
    }
    *queue = (struct modus_manager_queue){.last = &queue->first,
                                          .capacity = queue->capacity,
                                          .in_hands = queue->in_hands,
                                          .closed = queue->closed};
}

void modus_object_free(struct modus_manager_objects *objects, struct modus_object *object)
{
    uint64_t i = object->id & 0xffff;

    if (objects->table[i - 1] == object)
        objects->table[i - 1] = NULL;
    if (object->kind == MODUS_REMOTE_DICT)
        modus_dict_fini(&object->dict);
    else if (object->kind == MODUS_REMOTE_LIST)
        modus_list_fini(&object->list);
    else if (object->kind == MODUS_REMOTE_QUEUE)
        clear_queue(&object->queue);
    free(object);
}

void modus_objects_fini(struct modus_manager_objects *objects)
{
    for (unsigned i = 0; objects->table && i < objects->max; i++)
        if (objects->table[i])
            modus_object_free(objects, objects->table[i]);
    free(objects->table);
    objects->table = NULL;
}

/* --- dicts and lists ------------------------------------------------------------------------- */

/* Reply with a value whose size is known, if there is room for it: fetch copies it. */
static int reply_value(struct modus_manager_objects *objects, struct modus_turn *turn,
                       struct modus_object *object, long size,
                       long (*fetch)(struct modus_turn *turn, struct modus_object *object,
                                     void *memory, size_t room))
{
    if (size < 0)
        return (int)size;
    turn->reply.number = size;
    if (turn->request.b < 0 || size > turn->request.b)
        return 0;
    if ((size_t)size > objects->limits.message_bytes)
        return -ERANGE;
    unsigned char *payload = modus_conn_payload(turn->conn, (size_t)size);
    if (!payload)
        return -ENOMEM;
    size = fetch(turn, object, payload, (size_t)size);
    if (size < 0)
        return (int)size;
    turn->reply.size = (uint32_t)size;
    return 0;
}

static long get_dict(struct modus_turn *turn, struct modus_object *object, void *memory,
                     size_t room)
{
    return modus_dict_get(&object->dict, turn->key, memory, room, &turn->reply.value_version);
}

static long take_dict(struct modus_turn *turn, struct modus_object *object, void *memory,
                      size_t room)
{
    return modus_dict_take(&object->dict, turn->key, memory, room);
}

static long pack_dict(struct modus_turn *turn, struct modus_object *object, void *memory,
                      size_t room)
{
    (void)turn;
    return modus_dict_pack(&object->dict, memory, room);
}

static int reply_len(struct modus_turn *turn, long len)
{
    turn->reply.number = len;
    return len < 0 ? (int)len : 0;
}

static int do_dict(struct modus_manager_objects *objects, struct modus_turn *turn,
                   struct modus_object *object)
{
    struct modus_dict *dict = &object->dict;

    switch (turn->request.verb) {
    case MODUS_WIRE_LEN:
        return reply_len(turn, modus_dict_len(dict));
    case MODUS_WIRE_CLEAR:
        return modus_dict_clear(dict);
    case MODUS_WIRE_SNAPSHOT:
        turn->request.b = INT64_MAX;
        return reply_value(objects, turn, object, modus_dict_pack(dict, NULL, 0), pack_dict);
    case MODUS_WIRE_GET:
        return reply_value(objects, turn, object, get_dict(turn, object, NULL, 0), get_dict);
    case MODUS_WIRE_TAKE:
        return reply_value(objects, turn, object, get_dict(turn, object, NULL, 0), take_dict);
    case MODUS_WIRE_PUT:
        return modus_dict_put(dict, turn->key, turn->value);
    case MODUS_WIRE_PUT_IF:
        return modus_dict_put_if(dict, turn->key, turn->value, (uint64_t)turn->request.b);
    case MODUS_WIRE_REMOVE:
        return modus_dict_remove(dict, turn->key);
    default:
        return -EINVAL;
    }
}

static long get_list(struct modus_turn *turn, struct modus_object *object, void *memory,
                     size_t room)
{
    return modus_list_get(&object->list, (long)turn->request.a, memory, room,
                          &turn->reply.value_version);
}

static long take_list(struct modus_turn *turn, struct modus_object *object, void *memory,
                      size_t room)
{
    return modus_list_pop(&object->list, (long)turn->request.a, memory, room);
}

static long pack_list(struct modus_turn *turn, struct modus_object *object, void *memory,
                      size_t room)
{
    (void)turn;
    return modus_list_pack(&object->list, memory, room);
}

static int do_list(struct modus_manager_objects *objects, struct modus_turn *turn,
                   struct modus_object *object)
{
    struct modus_list *list = &object->list;
    long i = (long)turn->request.a;

    switch (turn->request.verb) {
    case MODUS_WIRE_LEN:
        return reply_len(turn, modus_list_len(list));
    case MODUS_WIRE_CLEAR:
        return modus_list_clear(list);
    case MODUS_WIRE_SNAPSHOT:
        turn->request.b = INT64_MAX;
        return reply_value(objects, turn, object, modus_list_pack(list, NULL, 0), pack_list);
    case MODUS_WIRE_GET:
        return reply_value(objects, turn, object, get_list(turn, object, NULL, 0), get_list);
    case MODUS_WIRE_TAKE:
        return reply_value(objects, turn, object, get_list(turn, object, NULL, 0), take_list);
    case MODUS_WIRE_PUT:
        return modus_list_set(list, i, turn->value);
    case MODUS_WIRE_PUT_IF:
        return modus_list_set_if(list, i, turn->value, (uint64_t)turn->request.b);
    case MODUS_WIRE_INSERT:
        return modus_list_insert(list, i, turn->value);
    default:
        return -EINVAL;
    }
}

/* --- values ---------------------------------------------------------------------------------- */

static int do_value(struct modus_turn *turn, struct modus_object *object)
{
    uint64_t old = object->value, a = (uint64_t)turn->request.a;

    switch (turn->request.verb) {
    case MODUS_WIRE_LOAD:
        break;
    case MODUS_WIRE_EXCHANGE:
        object->value = a;
        break;
    case MODUS_WIRE_ADD:
        object->value = old = old + a;
        break;
    case MODUS_WIRE_ADD_REAL:
        object->value = old = modus_value_bits(modus_value_real(old) + modus_value_real(a));
        break;
    case MODUS_WIRE_COMPARE:
        if (old == a)
            object->value = (uint64_t)turn->request.b;
        break;
    default:
        return -EINVAL;
    }
    turn->reply.number = (int64_t)old;
    return 0;
}

/* --- queues ---------------------------------------------------------------------------------- */

/* What an item takes; also one without bytes takes something. */
static size_t cost_of(size_t size)
{
    return sizeof(struct modus_manager_item) + size;
}

static void put_front(struct modus_manager_queue *queue, struct modus_manager_item *item)
{
    item->next = queue->first;
    if (!queue->first)
        queue->last = &item->next;
    queue->first = item;
    queue->len++;
    queue->bytes += cost_of(item->size);
}

/* Does anybody who came earlier wait for room? With items inside nobody waits for one. */
static bool is_behind_others(const struct modus_turn *turn, const struct modus_object *object)
{
    return !turn->conn->waits_for && object->first && object->queue.len > 0;
}

static int push(struct modus_manager_objects *objects, struct modus_turn *turn,
                struct modus_object *object)
{
    struct modus_manager_queue *queue = &object->queue;
    size_t size = turn->value.size, cost = cost_of(size), most = objects->limits.object_bytes;

    if (queue->closed)
        return MODUS_CLOSED;
    if (cost > most)
        return -ENOMEM;
    if (queue->len >= queue->capacity || queue->bytes > most - cost ||
        is_behind_others(turn, object))
        return turn->request.ns == 0 ? MODUS_FULL : MODUS_TURN_WAIT;
    struct modus_manager_item *item = malloc(cost);
    if (!item)
        return -ENOMEM;
    item->next = NULL;
    item->size = size;
    if (size)
        memcpy(item->bytes, turn->value.data, size);
    *queue->last = item;
    queue->last = &item->next;
    queue->len++;
    queue->bytes += cost;
    return 0;
}

static int pull(struct modus_turn *turn, struct modus_manager_queue *queue)
{
    struct modus_manager_item *item = queue->first;

    if (!item && queue->closed && queue->in_hands == 0)
        return MODUS_CLOSED;
    if (!item)
        return turn->request.ns == 0 ? MODUS_EMPTY : MODUS_TURN_WAIT;
    turn->reply.number = (int64_t)item->size;
    if (turn->request.b < 0 || (uint64_t)turn->request.b < item->size)
        return 0; /* it stays */
    unsigned char *payload = modus_conn_payload(turn->conn, item->size);
    if (!payload)
        return -ENOMEM;
    memcpy(payload, item->bytes, item->size);
    turn->reply.size = (uint32_t)item->size;
    queue->first = item->next;
    if (!queue->first)
        queue->last = &queue->first;
    queue->len--;
    queue->bytes -= cost_of(item->size);
    queue->in_hands++;
    turn->conn->item = item;
    turn->conn->item_from = turn->request.object;
    return 0;
}

static int do_queue(struct modus_manager_objects *objects, struct modus_turn *turn,
                    struct modus_object *object)
{
    struct modus_manager_queue *queue = &object->queue;

    switch (turn->request.verb) {
    case MODUS_WIRE_LEN:
        return reply_len(turn, (long)queue->len);
    case MODUS_WIRE_CLEAR:
        clear_queue(queue);
        return 0;
    case MODUS_WIRE_PUSH:
        return push(objects, turn, object);
    case MODUS_WIRE_PULL:
        return pull(turn, queue);
    case MODUS_WIRE_CLOSE:
        queue->closed = true;
        return 0;
    default:
        return -EINVAL;
    }
}

/* --- locks ----------------------------------------------------------------------------------- */

static int do_lock(struct modus_turn *turn, struct modus_object *object)
{
    struct modus_conn *holder = object->lock.holder;

    switch (turn->request.verb) {
    case MODUS_WIRE_ACQUIRE:
        if (holder == turn->conn)
            return -EDEADLK;
        if (holder)
            return turn->request.ns == 0 ? -EAGAIN : MODUS_TURN_WAIT;
        object->lock.holder = turn->conn;
        turn->reply.more = object->lock.orphaned;
        object->lock.orphaned = false;
        return 0;
    case MODUS_WIRE_RELEASE:
        if (holder != turn->conn)
            return -EPERM;
        object->lock.holder = NULL;
        return 0;
    default:
        return -EINVAL;
    }
}

/* --- all of them ----------------------------------------------------------------------------- */

/* Out of the table, so that nobody finds it; whoever serves frees it when all who wait have been
 * told. */
static int drop(struct modus_manager_objects *objects, struct modus_object *object)
{
    objects->table[(object->id & 0xffff) - 1] = NULL;
    return 0;
}

int modus_objects_do(struct modus_manager_objects *objects, struct modus_turn *turn)
{
    if (turn->request.verb == MODUS_WIRE_HELLO)
        return 0;
    if (turn->request.verb == MODUS_WIRE_OPEN)
        return open_object(objects, turn);
    struct modus_object *object = modus_objects_find(objects, turn->request.object);
    if (!object)
        return turn->conn->waits_for ? MODUS_CLOSED : -ENOENT;
    turn->changed = object;
    if (turn->request.verb == MODUS_WIRE_DROP)
        return drop(objects, object);
    switch (object->kind) {
    case MODUS_REMOTE_DICT:
        return do_dict(objects, turn, object);
    case MODUS_REMOTE_LIST:
        return do_list(objects, turn, object);
    case MODUS_REMOTE_VALUE:
        return do_value(turn, object);
    case MODUS_REMOTE_QUEUE:
        return do_queue(objects, turn, object);
    case MODUS_REMOTE_LOCK:
        return do_lock(turn, object);
    }
    return -EINVAL;
}

/* The queue from which conn has an item in its hands; from now on it has not. NULL: none. */
static struct modus_object *let_go_of_item(struct modus_manager_objects *objects,
                                           const struct modus_conn *conn)
{
    struct modus_object *from = conn->item ? modus_objects_find(objects, conn->item_from) : NULL;

    if (!from || from->kind != MODUS_REMOTE_QUEUE || from->queue.in_hands == 0)
        return NULL;
    from->queue.in_hands--;
    return from;
}

struct modus_object *modus_objects_acknowledge(struct modus_manager_objects *objects,
                                               struct modus_conn *conn)
{
    struct modus_object *from = let_go_of_item(objects, conn);

    free(conn->item);
    conn->item = NULL;
    return from;
}

void modus_objects_forget(struct modus_manager_objects *objects, struct modus_conn *conn,
                          void (*changed)(void *context, struct modus_object *object),
                          void *context)
{
    struct modus_object *from = let_go_of_item(objects, conn);

    if (from) {
        put_front(&from->queue, conn->item);
        conn->item = NULL;
        changed(context, from);
    }
    free(conn->item);
    conn->item = NULL;
    for (unsigned i = 0; i < objects->max; i++) {
        struct modus_object *object = objects->table[i];

        if (object && object->kind == MODUS_REMOTE_LOCK && object->lock.holder == conn) {
            object->lock.holder = NULL;
            object->lock.orphaned = true;
            changed(context, object);
        }
    }
}
