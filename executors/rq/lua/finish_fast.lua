-- Part: the finish of one job that succeeded and has nothing that few jobs have, before anything is made for the others.
-- It does what the rest of the script would do.
local worker, sequence, outcomes, state, seconds, idle, queues = unpack(cmsgpack.unpack(ARGV[1]))
local wkey = K_WORKER .. worker
local done, successes, worked = unpack(call('HMGET', wkey, F_finish_seq, F_succeeded, F_working_time))
-- A damaged key of one job must not cost it, or others, their ends: `try` goes on after an error
local try = redis.pcall

-- What must be empty for a worker to register as idle: the lists of its queues
local lists = {}
for i, queue in ipairs(idle ~= 0 and done and queues or {}) do lists[i] = K_QUEUE .. queue end

local function register_if_empty()
  if not lists[1] or call('EXISTS', unpack(lists)) > 0 then return 0 end
  register_idle(worker, idle[1], idle[2], queues)
  return 1
end

-- Returns whether it was such a job, and its worker's still; then also what `register_if_empty` does, done on the way
local function finish_fast(id, token, queue, kind, ttl, reply_to, counts, value, _, since, key, more, _, _, foreign, whole, log)
  local rare = kind ~= 's' or ttl <= 0 or key ~= '' or more ~= 0 or foreign ~= 0 or whole ~= 0 or log ~= ''
  if rare or #value > T_INLINE_MAX then return false end
  local job, composite = K_JOB .. id, id .. ':' .. token
  local empty = call('EXISTS', job .. ':dependents', K_SUBSCRIBERS .. id, K_LOG .. id, unpack(lists)) == 0
  if not empty and call('EXISTS', job .. ':dependents', K_SUBSCRIBERS .. id, K_LOG .. id) > 0 then return false end
  if call('ZREM', K_WIP .. queue, composite) == 0 then return false end
  call('SREM', wkey .. ':executions', composite)
  call('DEL', K_EXECUTION .. composite, K_EXECUTIONS .. id)
  try('HSET', job, F_status, S_FINISHED, F_ended_at, iso, F_last_heartbeat, iso)
  local entry = {F_type, 1, F_worker_name, worker, F_execution_id, token, F_execution_started_at, since,
    F_execution_ended_at, stamp}
  if value ~= '' then entry[11], entry[12] = F_return_value, value end
  add_result(id, unpack(entry))
  try('EXPIRE', K_RESULTS .. id, ttl)
  try('EXPIRE', job, ttl)
  call('ZADD', K_FINISHED .. queue, at(ttl), id)
  if reply_to ~= '' then
    local size = call('RPUSH', K_REPLIES .. reply_to, 's' .. counts .. ' ' .. id .. ' ' .. value)
    if size > T_REPLIES_MAX then call('LTRIM', K_REPLIES .. reply_to, -T_REPLIES_MAX, -1) end
    call('EXPIRE', K_REPLIES .. reply_to, T_REPLIES_KEPT)
  end
  local about = {F_finish_seq, sequence .. ' ', F_state, state, F_succeeded, num(successes) + 1}
  if seconds > 0 then about[7], about[8] = F_working_time, string.format('%.6f', num(worked) + seconds) end
  local registers = empty and lists[1]
  if registers then
    about[#about + 1], about[#about + 2] = F_idle, until_when(idle[1], idle[2])
    stand_at(queues, worker)
  end
  call('HSET', wkey, unpack(about))
  return true, registers and 1 or 0
end
if done and #outcomes == 1 then
  local fine, registered = finish_fast(unpack(outcomes[1]))
  if fine then return {{}, registered} end
end

