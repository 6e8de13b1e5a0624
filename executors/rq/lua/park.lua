-- Part: a worker that finds its queues empty parks at them: the next job that is put alone is handed to it, see plain.
--   parking: {token base, seconds, processes that are free, 1 when something may have been handed over under this base}
local function is_parked(worker, base)
  return string.sub(call('HGET', K_WORKER .. worker, F_parked) or '', 1, #base) == base
end

local function park(worker, base, seconds, queues)
  call('HSET', K_WORKER .. worker, F_parked, string.format('%s %.3f', base, now + seconds))
  for _, queue in ipairs(queues) do call('SADD', K_PARKED .. queue, worker) end
end

local function unpark(worker) call('HDEL', K_WORKER .. worker, F_parked) end

