-- needs: prelude
-- What running jobs say. Argument: {worker, sequence number, notes}; a note: {id, token, queue, progress, meta, log},
-- '' for what is not said. Returns the late ids. Repeated with the same sequence number it appends no log twice.
local worker, sequence, notes = unpack(cmsgpack.unpack(ARGV[1]))
local late = {}
if call('HGET', K_WORKER .. worker, F_note_seq) == sequence then return late end
if call('HEXISTS', K_WORKER .. worker, F_birth) == 1 then call('HSET', K_WORKER .. worker, F_note_seq, sequence) end
for _, note in ipairs(notes) do
  local id, token, queue, progress, meta, log = unpack(note)
  if call('ZSCORE', K_WIP .. queue, id .. ':' .. token) then
    if progress ~= '' then call('HSET', K_JOB .. id, F_progress, progress) end
    if meta ~= '' then call('HSET', K_JOB .. id, F_meta, meta, F_rare, 1) end
    if log ~= '' then
      local room = T_LOG_MAX - call('STRLEN', K_LOG .. id)
      if room > 0 then call('APPEND', K_LOG .. id, string.sub(log, 1, room)) end
    end
  else
    late[#late + 1] = id
  end
end
return late
