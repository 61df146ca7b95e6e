-- 16 requests in one write, the next 16 after all their answers. wrk's latency is then a batch's.
dofile("report.lua")
local batch

function init(args)
   batch = string.rep(wrk.format(), 16)
end

function request()
   return batch
end
