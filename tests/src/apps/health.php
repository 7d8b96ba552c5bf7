<?php
// The file `mode` says how this page behaves.
$mode = file_get_contents(__DIR__ . '/mode');
if ($mode === 'slow') {
    sleep(1);
}
if ($mode === 'broken') {
    throw new RuntimeException('no connection to the database');
}
header('Content-Type: text/plain');
echo $mode === 'starting' ? "starting\n" : "ready\n";
