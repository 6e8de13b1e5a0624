-- An reply_to wants to hear of jobs. Argument: {reply_to, ids, register: 1 or 0}. Returns a string: for each job w (not ended),
-- e (ended) or m (missing). Jobs that have not ended tell this reply_to from now on, where it is to be registered.
local call = redis.call
local reply_to, ids, register = unpack(cmsgpack.unpack(ARGV[1]))
local ENDED = {[S_FINISHED] = true, [S_FAILED] = true, [S_STOPPED] = true, [S_CANCELED] = true}
local found = {}
if register == 1 then call('DEL', K_SCRATCH) end -- a first write that takes no memory, see moment
for i, id in ipairs(ids) do
  local j = redis.pcall('HMGET', K_JOB .. id, F_status, F_reply, F_task)
  if j.err or not j[1] then
    found[i] = 'm'
  elseif ENDED[j[1]] then
    found[i] = 'e'
  else
    found[i] = 'w'
    if register == 1 and j[2] ~= reply_to then
      call('SADD', K_SUBSCRIBERS .. id, reply_to)
      call('EXPIRE', K_SUBSCRIBERS .. id, 2592000)
    end
  end
end
return table.concat(found)
