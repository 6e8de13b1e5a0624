-- needs: prelude queue rate_limit result complete requeue idle
-- Say that a worker lives, and what it holds. Argument: {worker, lease, flat fields, held, mine, coming, idle or 0,
--   queues}; held: {queue, {id, token, ...}, ...}; mine: {id:token, ...}, all that it knows to be in its hands;
--   coming: what the tokens begin with of jobs that it is about to hear of.
-- Returns {'gone'} when its record is not there; or {'ok', ids that it holds no longer, {id, 'ask' or 'kill', ...},
--   1 if it is still registered}.
local worker, lease, fields, held, mine, coming, idle, queues = unpack(cmsgpack.unpack(ARGV[1]))
local wkey = K_WORKER .. worker
if call('HEXISTS', wkey, F_birth) == 0 then return {'gone'} end
begin_writing()
call('ZADD', K_LEASES, now + lease, worker)
call('HSET', wkey, F_last_heartbeat, iso, unpack(fields))
call('EXPIRE', wkey, T_WORKER_ALIVE)
call('EXPIRE', wkey .. ':executions', T_HELD)
local lost, wishes = {}, {}
-- See finish: a job of stock RQ that a client of it has cancelled runs on
local function runs_on(id, composite)
  local j = call('HMGET', K_JOB .. id, F_status, F_task)
  return j[1] == S_CANCELED and not j[2] and call('SISMEMBER', wkey .. ':executions', composite) == 1
end
for n = 1, #held, 2 do
  local wip, entries = K_WIP .. held[n], held[n + 1]
  for i = 1, #entries, 2 do
    local id, token = entries[i], entries[i + 1]
    local composite = id .. ':' .. token
    if call('ZSCORE', wip, composite) then
      call('ZADD', wip, 'XX', now + T_ALIVE, composite)
      call('HSET', K_EXECUTION .. composite, F_last_heartbeat, stamp)
      call('EXPIRE', K_EXECUTION .. composite, T_ALIVE)
      call('ZADD', K_EXECUTIONS .. id, 'XX', now + T_ALIVE + 60, token)
      call('EXPIRE', K_EXECUTIONS .. id, T_ALIVE + 60)
      call('HSET', K_JOB .. id, F_last_heartbeat, iso)
      local cancel = call('HGET', K_JOB .. id, F_cancel)
      if cancel then wishes[#wishes + 1] = id wishes[#wishes + 1] = cancel end
    elseif not runs_on(id, composite) then
      lost[#lost + 1] = id
    end
  end
end
-- What it does not know of goes back, as nobody would ever run it: a request that came late may have started it
if call('SCARD', wkey .. ':executions') > #mine then
  local known = {}
  for _, composite in ipairs(mine) do known[composite] = true end
  for _, composite in ipairs(call('SMEMBERS', wkey .. ':executions')) do
    for _, base in ipairs(coming) do known[composite] = known[composite] or string.find(composite, ':' .. base, 1, true) end
    if not known[composite] then
      call('SREM', wkey .. ':executions', composite)
      pcall(put_back_one, composite, false)
    end
  end
  send_news()
end

local registered = idle ~= 0 and is_idle(worker, idle[1])
if registered then register_idle(worker, idle[1], idle[2], queues) end
return {'ok', lost, wishes, registered and 1 or 0}
