# ring-thread/
/^long modus_ring_thread_put/,/^}/{
s/} else if (atomic_compare_exchange_weak_explicit(&ring->tail, &tail, tail + run,/} else if ((atomic_store(\&ring->tail, tail + run),/
s/^ *memory_order_relaxed,$/ true))/
/^ *memory_order_relaxed)) {$/s/.*/        {/
}
