-- Part: a worker that finds its queues empty registers at them: the next job that is put alone is handed to it, see plain.
--   idle: {token base, seconds, processes that are free, 1 when something may have been handed over under this base}
local function is_idle(worker, base)
  return string.sub(call('HGET', K_WORKER .. worker, F_idle) or '', 1, #base) == base
end

local function until_when(base, seconds) return string.format('%s %.3f', base, now + seconds) end

local function stand_at(queues, worker)
  for _, queue in ipairs(queues) do call('SADD', K_IDLE .. queue, worker) end
end

local function register_idle(worker, base, seconds, queues)
  call('HSET', K_WORKER .. worker, F_idle, until_when(base, seconds))
  stand_at(queues, worker)
end

local function unregister_idle(worker) call('HDEL', K_WORKER .. worker, F_idle) end

