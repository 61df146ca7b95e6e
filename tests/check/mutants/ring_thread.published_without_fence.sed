# --tso ring-thread/ queue/
s/atomic_exchange(&slot->state, state);/atomic_store_explicit(\&slot->state, state, memory_order_release);/
