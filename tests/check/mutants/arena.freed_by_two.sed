# arena/
s/if (!fits(link, size) || !atomic_compare_exchange_strong(&arena->links\[unit\], &link, 0))/if (!fits(link, size))/
