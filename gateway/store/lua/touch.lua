#!lua flags=allow-oom
-- Writes a key of no meaning: who waits on this connection afterwards, for the disk or for replicas, waits for all that
-- was written before, by whichever connection.
--
-- KEYS  1 string  empty
-- ARGV  none
-- Returns {'touched'}  written
-- Guarantee: none but that something is written, also in a full store.
redis.call('EXISTS', KEYS[1])
redis.call('SET', KEYS[1], '')
return { 'touched' }
