<#
.SYNOPSIS
Sends the ticks of an EA's database to the server once. A run goes on where the last one stopped.

.DESCRIPTION
For the Task Scheduler (install-task.ps1) or by hand. The server's key is read from a file or from the variable
TICKPIPE_RELAY_FORWARD_KEY. What it did is in the log; the exit code is that of `tickpipe relay export`.

.EXAMPLE
.\run-exporter.ps1 -Api https://ticks.example.com -Db D:\ticks\ea.db
#>
[CmdletBinding()]
param(
    # URL of the server.
    [Parameter(Mandatory = $true)][string]$Api,
    # The database that the EA or the relay fills.
    [string]$Db,
    # A file with the server's key in its first line.
    [string]$KeyFile,
    # tickpipe.exe, when it is not found by itself.
    [string]$Tickpipe,
    # Where to write what it did.
    [string]$Log
)

. (Join-Path $PSScriptRoot 'tickpipe.ps1')

if (-not $Db) { $Db = Join-Path $TickpipeData 'ea.db' }
if (-not $KeyFile) { $KeyFile = Join-Path $TickpipeData 'key.txt' }
if (-not $Log) { $Log = Join-Path $TickpipeData 'exporter.log' }

$program = Find-Tickpipe $Tickpipe
if (-not (Test-Path -LiteralPath $Db -PathType Leaf)) {
    Stop-WithMessage "$Db does not exist. Cure: start the relay or the EA's collector first, or name its database with -Db."
}
$env:TICKPIPE_RELAY_FORWARD_KEY = Read-Secret $KeyFile 'TICKPIPE_RELAY_FORWARD_KEY' "the server's key"

$code = Invoke-Logged $program @('relay', 'export', '--db', $Db, '--api', $Api, '--all') $Log
if ($code -ne 0) {
    Stop-WithMessage "the export ended with code $code. Cure: the reason is at the end of $Log." $code
}
exit 0
