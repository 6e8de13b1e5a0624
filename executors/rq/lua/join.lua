-- needs: prelude rights
-- Sign a worker on. Argument: {worker, lease, flat fields, queues, take over: 1 or 0, nonce of this worker, commands}.
--   Commands: all that it will have to call; a user who may not call one of them is refused.
-- Returns 'taken <host> <pid>' when another of this name is alive, else 'ok'.
local worker, lease, fields, queues, take_over, nonce, needed = unpack(cmsgpack.unpack(ARGV[1]))
local refusal = refuse_unless_allowed(needed)
if refusal then return refusal end
local wkey = K_WORKER .. worker
local score = call('ZSCORE', K_LEASES, worker)
if take_over == 0 and score and tonumber(score) > now and call('HGET', wkey, F_nonce) ~= nonce then
  local at = call('HMGET', wkey, F_hostname, F_pid)
  return 'taken ' .. (at[1] or '?') .. ' ' .. (at[2] or '?')
end
call('DEL', wkey)
call('ZADD', K_LEASES, now + lease, worker)
call('HSET', wkey, F_birth, iso, F_last_heartbeat, iso, F_queues, table.concat(queues, ','), F_claim_seq, '0', F_finish_seq, '0', F_state,
  'idle', F_nonce, nonce, unpack(fields))
call('EXPIRE', wkey, T_WORKER_ALIVE)
call('SADD', K_WORKERS, wkey)
for _, queue in ipairs(queues) do
  call('SADD', K_WORKERS_OF .. queue, wkey)
end
return 'ok'
