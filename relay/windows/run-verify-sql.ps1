<#
.SYNOPSIS
Asks the server whether it takes ticks, and the database what it has: the five ready queries of `tickpipe query`.

.DESCRIPTION
1 the last 20 rows, 2 rows and newest time per symbol over 24 hours, 3 latency per symbol, 4 the structure of the table, 5 timeline
per symbol. The database's URL holds a password, so it is read from a file or from the variable TICKPIPE_DATABASE_URL:
postgresql://USER:PASSWORD@HOST:5432/NAME. Needs the extra `sink` of the kit's
wheel: pip install "tickpipe-VERSION-py3-none-any.whl[sink]".

The server's URL is the first line of server-url.txt in %ProgramData%\Tickpipe or the variable TICKPIPE_RELAY_FORWARD_URL, its
key that of key.txt or TICKPIPE_RELAY_FORWARD_KEY. Scheduled tasks of an older exporter or relay are named.

.EXAMPLE
.\run-verify-sql.ps1
.EXAMPLE
.\run-verify-sql.ps1 -Query 3, 5 -Format csv
#>
[CmdletBinding()]
param(
    # URL of the server.
    [string]$Api,
    # Which of the queries; all when nothing is said.
    [ValidateRange(1, 5)][int[]]$Query = @(1, 2, 3, 4, 5),
    # table for people, csv and json for programs.
    [ValidateSet('table', 'csv', 'json')][string]$Format = 'table',
    # A file with the database's URL in its first line.
    [string]$UrlFile,
    # tickpipe.exe, when it is not found by itself.
    [string]$Tickpipe
)

. (Join-Path $PSScriptRoot 'tickpipe.ps1')

if (-not $UrlFile) { $UrlFile = Join-Path $TickpipeData 'database-url.txt' }
$program = Find-Tickpipe $Tickpipe
$env:TICKPIPE_DATABASE_URL = Read-Secret $UrlFile 'TICKPIPE_DATABASE_URL' "the database's URL"
$env:PYTHONUTF8 = '1'

if (-not $Api) { $Api = Read-Secret (Join-Path $TickpipeData 'server-url.txt') 'TICKPIPE_RELAY_FORWARD_URL' "the server's URL" }
$env:TICKPIPE_RELAY_FORWARD_KEY = Read-Secret (Join-Path $TickpipeData 'key.txt') 'TICKPIPE_RELAY_FORWARD_KEY' "the server's key"
Write-OlderTask

$failed = 0
& $program relay check --to $Api
if ($LASTEXITCODE -ne 0) { $failed = $LASTEXITCODE }
foreach ($number in $Query) {
    if ($Format -eq 'table') { Write-Output "Query $number" }
    & $program query $number --format $Format
    if ($LASTEXITCODE -ne 0) { $failed = $LASTEXITCODE }
}
if ($failed -ne 0) {
    Stop-WithMessage 'the server or at least one query failed; the reason is above. Cure: is the URL right, and is the extra `sink` of the wheel installed?' $failed
}
exit 0
