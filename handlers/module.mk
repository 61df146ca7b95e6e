# What the status page brings with it is part of an object, and the compiler does not say so.
$(BUILD)/handlers/status_assets.o: handlers/status.css handlers/status.js
