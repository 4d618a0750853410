<#
.SYNOPSIS
Sends the ticks of an EA's database to the server once. A run goes on where the last one stopped.

.DESCRIPTION
For the Task Scheduler (install-task.ps1) or by hand. Without arguments the server's URL is the first line of
server-url.txt and its key that of key.txt, both in %ProgramData%\Tickpipe, or the variables TICKPIPE_RELAY_FORWARD_URL and
TICKPIPE_RELAY_FORWARD_KEY. What it did is in the log; the exit code is that of `tickpipe relay export`. Scheduled tasks of
an older exporter that would run beside it are named.

.EXAMPLE
.\run-exporter.ps1
.EXAMPLE
.\run-exporter.ps1 -SinceLastHour -Batch 500
.EXAMPLE
.\run-exporter.ps1 -Api https://ticks.example.com -Db D:\ticks\ea.db
#>
[CmdletBinding()]
param(
    # URL of the server.
    [string]$Api,
    # The server's key; better in the key file, as everybody on the PC sees arguments.
    [string]$Token,
    # Rows read from the database at once.
    [ValidateRange(1, 100000)][int]$PageSize = 1000,
    # Most rows of one request.
    [ValidateRange(1, 20000)][int]$Batch = 200,
    # Send what no earlier run has sent, which is done unless -SinceLastHour is said.
    [switch]$All,
    # Send what was stored in the last hour, whatever was sent before.
    [switch]$SinceLastHour,
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
if ($All -and $SinceLastHour) { Stop-WithMessage '-All and -SinceLastHour contradict each other. Cure: say one of them.' }
if (-not $Api) { $Api = Read-Secret (Join-Path $TickpipeData 'server-url.txt') 'TICKPIPE_RELAY_FORWARD_URL' "the server's URL" }
if (-not $Token) { $Token = Read-Secret $KeyFile 'TICKPIPE_RELAY_FORWARD_KEY' "the server's key" }
$env:TICKPIPE_RELAY_FORWARD_KEY = $Token

Write-OlderTask
$which = if ($SinceLastHour) { @('--since-minutes', '60') } else { @('--all') }
$arguments = @('relay', 'export', '--db', $Db, '--api', $Api, '--page-size', "$PageSize", '--batch', "$Batch") + $which
$code = Invoke-Logged $program $arguments $Log
if ($code -ne 0) {
    Stop-WithMessage "the export ended with code $code. Cure: the reason is at the end of $Log." $code
}
exit 0
