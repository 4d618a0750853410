<#
.SYNOPSIS
Runs the relay: EAs post to it on this PC, it stores every tick on the disk and forwards it.

.DESCRIPTION
For the Task Scheduler (install-service.ps1) or by hand; it runs until it is stopped. The server's key is read from a file or
from the variable TICKPIPE_RELAY_FORWARD_KEY. Without -Forward it only stores.

.EXAMPLE
.\run-relay.ps1 -Forward https://ticks.example.com
#>
[CmdletBinding()]
param(
    # URL of the server.
    [string]$Forward,
    # The database of ticks; created when missing.
    [string]$Db,
    # Port that EAs post to.
    [ValidateRange(1, 65535)][int]$Port = 18000,
    # How long confirmed rows are retained: 7d, 12h, forever. Without it seven days, or for ever in a file that was there before.
    [string]$Keep,
    # A file with the server's key in its first line.
    [string]$KeyFile,
    # tickpipe.exe, when it is not found by itself.
    [string]$Tickpipe,
    # Where to write what it does.
    [string]$Log
)

. (Join-Path $PSScriptRoot 'tickpipe.ps1')

if (-not $Db) { $Db = Join-Path $TickpipeData 'ea.db' }
if (-not $KeyFile) { $KeyFile = Join-Path $TickpipeData 'key.txt' }
if (-not $Log) { $Log = Join-Path $TickpipeData 'relay.log' }

$program = Find-Tickpipe $Tickpipe
Initialize-Folder (Split-Path -Parent $Db)
$arguments = @('relay', 'serve', '--db', $Db, '--port', "$Port")
if ($Keep) { $arguments += @('--keep', $Keep) }
if ($Forward) {
    $env:TICKPIPE_RELAY_FORWARD_KEY = Read-Secret $KeyFile 'TICKPIPE_RELAY_FORWARD_KEY' "the server's key"
    $arguments += @('--forward', $Forward)
}

$code = Invoke-Logged $program $arguments $Log
if ($code -ne 0) {
    Stop-WithMessage "the relay ended with code $code. Cure: the reason is at the end of $Log; is port $Port taken?" $code
}
exit 0
