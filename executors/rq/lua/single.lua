-- Part: the finish of one job that succeeded and has nothing that few jobs have, before anything is made for the others.
-- It does what the rest of the script would do.
local worker, sequence, verdicts, state, seconds, parking, queues = unpack(cmsgpack.unpack(ARGV[1]))
local wkey = K_WORKER .. worker
local done = call('HGET', wkey, F_finish_seq)
-- A damaged key of one job must not cost it, or others, their ends: `try` goes on after an error
local try = redis.pcall

local function park_if_empty()
  if parking == 0 or not done then return 0 end
  local lists = {}
  for i, queue in ipairs(queues) do lists[i] = K_QUEUE .. queue end
  if call('EXISTS', unpack(lists)) > 0 then return 0 end
  park(worker, parking[1], parking[2], queues)
  return 1
end

-- Returns whether it was such a job, and its worker's still
local function finish_single(id, token, queue, kind, ttl, ear, counts, value, _, since, key, more, _, _, foreign, whole, log)
  local rare = kind ~= 's' or ttl <= 0 or key ~= '' or more ~= 0 or foreign ~= 0 or whole ~= 0 or log ~= ''
  if rare or #value > T_INLINE_MAX then return false end
  local job, composite = K_JOB .. id, id .. ':' .. token
  if call('EXISTS', job .. ':dependents', K_EARS .. id, K_LOG .. id) > 0 then return false end
  if call('ZREM', K_WIP .. queue, composite) == 0 then return false end
  call('SREM', wkey .. ':executions', composite)
  call('DEL', K_EXECUTION .. composite, K_EXECUTIONS .. id)
  try('HSET', job, F_status, S_FINISHED, F_ended_at, iso, F_last_heartbeat, iso)
  local about = {F_type, 1, F_worker_name, worker, F_execution_id, token, F_execution_started_at, since,
    F_execution_ended_at, stamp}
  if value ~= '' then about[11], about[12] = F_return_value, value end
  add_result(id, unpack(about))
  try('EXPIRE', K_RESULTS .. id, ttl)
  try('EXPIRE', job, ttl)
  call('ZADD', K_FINISHED .. queue, at(ttl), id)
  if ear ~= '' then
    local size = call('RPUSH', K_REPLIES .. ear, 's' .. counts .. ' ' .. id .. ' ' .. value)
    if size > T_REPLIES_MAX then call('LTRIM', K_REPLIES .. ear, -T_REPLIES_MAX, -1) end
    call('EXPIRE', K_REPLIES .. ear, T_REPLIES_KEPT)
  end
  call('HSET', wkey, F_finish_seq, sequence .. ' ', F_state, state)
  call('HINCRBY', wkey, F_succeeded, 1)
  if seconds > 0 then call('HINCRBYFLOAT', wkey, F_working_time, seconds) end
  return true
end
if done and #verdicts == 1 and finish_single(unpack(verdicts[1])) then return {{}, park_if_empty()} end

