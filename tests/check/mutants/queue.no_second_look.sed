# queue/
/^static long visit_once/,/^}/s/long rc = move(queue, direction, range);/long rc = direction->nothing;/
