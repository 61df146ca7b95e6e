# arena/
s/return ((head >> 32) + 1) << 32 | unit;/return (head >> 32) << 32 | unit;/
