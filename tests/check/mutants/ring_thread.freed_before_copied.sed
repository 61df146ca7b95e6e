# ring-thread/
/^long modus_ring_thread_get/,/^}/{
/ring_copy(item/{
h
d
}
/set_state(slot/{
G
}
}
