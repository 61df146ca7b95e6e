# queue/
/^static void settle/,/^}/s/modus_gate_nudge(gate, queue->scope)/(void)0/
