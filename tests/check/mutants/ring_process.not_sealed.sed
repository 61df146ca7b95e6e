# ring-process/close
s/^    seal(queue);/    (void)seal;/
