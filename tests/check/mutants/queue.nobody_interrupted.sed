# queue/interrupt
/^int modus_queue_interrupt/,/^}/s/^    wake_all(queue);/    (void)0;/
