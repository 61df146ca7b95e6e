# cond/process
s/uint32_t seen = atomic_fetch_or(&cond->word, MARK) | MARK;/uint32_t seen = atomic_load(\&cond->word);/
