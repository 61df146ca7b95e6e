# linear/put
/^static long claim/,/^}/s/            if (now == head)/            if (1)/
