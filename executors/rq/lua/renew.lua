-- needs: moment
-- Say that a worker lives, and what it holds. Argument: {worker, lease, flat fields, held}; held: {queue, {id, token, ...}, ...}.
-- Returns {'gone'} when its record is not there; or {'ok', ids that it holds no longer, {id, 'ask' or 'kill', ...}}.
local worker, lease, fields, held = unpack(cmsgpack.unpack(ARGV[1]))
local wkey = K_WORKER .. worker
if call('HEXISTS', wkey, F_birth) == 0 then return {'gone'} end
begin_writing()
call('ZADD', K_LEASES, now + lease, worker)
call('HSET', wkey, F_last_heartbeat, iso, unpack(fields))
call('EXPIRE', wkey, T_WORKER_ALIVE)
call('EXPIRE', wkey .. ':executions', T_ALIVE + 60)
local lost, wishes = {}, {}
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
    else
      lost[#lost + 1] = id
    end
  end
end
return {'ok', lost, wishes}
