-- An ear wants to hear of jobs. Argument: {ear, ids, register: 1 or 0}. Returns a string: for each job w (not ended),
-- e (ended) or m (missing). Jobs that have not ended tell this ear from now on, where it is to be registered.
local call = redis.call
local ear, ids, register = unpack(cmsgpack.unpack(ARGV[1]))
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
    if register == 1 and j[2] ~= ear then
      call('SADD', K_EARS .. id, ear)
      call('EXPIRE', K_EARS .. id, 2592000)
    end
  end
end
return table.concat(found)
