-- Part: jobs whose time has come go from the scheduled registry into their queue, at most 500 at once.
local function promote_one(queue, id)
  local j = redis.pcall('HMGET', K_JOB .. id, F_status, F_priority, F_at_front, F_front_on_retry, F_ended_at,
    F_rate_limit_key, F_rate_limit_concurrency, F_data)
  if j.err or not j[8] then
    -- gone, or never a job
  elseif j[6] and j[7] then
    enqueue_limited(id, j[6], j[7])
  else
    enqueue(queue, id, j[2], at_front(j[3]) or ((j[5] or '') ~= '' and at_front(j[4])))
  end
end

local function promote(queue)
  local scheduled = K_SCHEDULED .. queue
  for _, id in ipairs(call('ZRANGEBYSCORE', scheduled, '-inf', now, 'LIMIT', 0, 500)) do
    if pcall(promote_one, queue, id) then
      call('ZREM', scheduled, id)
    else
      call('ZADD', scheduled, now + 60, id) -- a key that it needs holds something else
    end
  end
end
