-- needs: prelude queue rate_limit result complete
-- Cancel what waits, and ask the workers of what runs. Argument: {ids, 'ask' or 'kill', words or 0}. Returns the
--   statuses, '' for none. Words: for each id 'ask' or 'kill', a blank, and the signature that goes with it.
local ids, how, words = unpack(cmsgpack.unpack(ARGV[1]))
begin_writing()
local WAITS = {[S_QUEUED] = true, [S_SCHEDULED] = true, [S_DEFERRED] = true, [S_READY] = true, [S_RATE_LIMITED] = true,
  [S_CREATED] = true}
local found, queued = {}, {}

-- Taking many ids out of one list one by one would read it as often: then it is written anew
local function leave_list(queue, gone)
  local list, count = K_QUEUE .. queue, 0
  for _ in pairs(gone) do count = count + 1 end
  if count < 32 then
    for id in pairs(gone) do call('LREM', list, 1, id) end
  else
    local stay = {}
    for _, id in ipairs(call('LRANGE', list, 0, -1)) do if not gone[id] then stay[#stay + 1] = id end end
    call('DEL', list)
    for first = 1, #stay, 5000 do call('RPUSH', list, unpack(stay, first, math.min(first + 4999, #stay))) end
  end
  for id in pairs(gone) do if has_bands(queue) then call('ZREM', K_PRIORITIES .. queue, id) end end
end

local closing = {}
local function cancel(i, id)
  local j = call('HMGET', K_JOB .. id, F_status, F_origin, F_worker_name, F_rate_limit_key)
  local status = j[1]
  if not status then
    found[i] = ''
  elseif WAITS[status] then
    if status == S_QUEUED then
      local queue = j[2] or ''
      queued[queue] = queued[queue] or {}
      queued[queue][id] = true
    else
      withdraw(id, j[2] or '', status)
    end
    closing[#closing + 1] = {id, j[4]}
    call('HSET', K_JOB .. id, F_status, S_CANCELED)
    found[i] = S_CANCELED
  else
    if status == S_STARTED then
      local word = words ~= 0 and words[i] or how
      call('HSET', K_JOB .. id, F_cancel, word)
      local command = how == 'kill' and 'stop-job' or 'taskq-cancel'
      call('PUBLISH', K_CHANNEL .. (j[3] or ''), cjson.encode({command = command, job_id = id, taskq = word}))
    end
    found[i] = status
  end
end

local function finish(id, limited)
  close(id, '', '')
  if limited then release_slot(id, limited) end
end

-- What one record holds costs that job alone
for i, id in ipairs(ids) do
  found[i] = ''
  pcall(cancel, i, id)
end
for queue, gone in pairs(queued) do leave_list(queue, gone) end
for _, entry in ipairs(closing) do pcall(finish, unpack(entry)) end
send_news()
return found
