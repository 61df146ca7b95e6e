-- A connection a request.
dofile("report.lua")
wrk.headers["Connection"] = "close"
