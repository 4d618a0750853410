<#
.SYNOPSIS
Lets the Task Scheduler send the ticks of an EA's database every five minutes, for ever, also while nobody is logged on.

.DESCRIPTION
Needs administrator rights once. No password is stored. Put the server's key into the first line of the key file before
(%ProgramData%\Tickpipe\key.txt when nothing else is said). Installing again replaces the task.

.EXAMPLE
.\install-task.ps1 -Api https://ticks.example.com
.EXAMPLE
.\install-task.ps1 -Uninstall
#>
[CmdletBinding(DefaultParameterSetName = 'Install')]
param(
    # URL of the server.
    [Parameter(Mandatory = $true, ParameterSetName = 'Install')][string]$Api,
    # Minutes between two runs.
    [Parameter(ParameterSetName = 'Install')][ValidateRange(1, 1440)][int]$Minutes = 5,
    # The database that the EA or the relay fills.
    [Parameter(ParameterSetName = 'Install')][string]$Db,
    # A file with the server's key in its first line.
    [Parameter(ParameterSetName = 'Install')][string]$KeyFile,
    # tickpipe.exe, when it is not found by itself.
    [Parameter(ParameterSetName = 'Install')][string]$Tickpipe,
    # User: you, without a stored password. System: for accounts that do not allow that.
    [Parameter(ParameterSetName = 'Install')][ValidateSet('User', 'System')][string]$RunAs = 'User',
    # Remove the task instead.
    [Parameter(Mandatory = $true, ParameterSetName = 'Uninstall')][switch]$Uninstall,
    # Name of the task.
    [string]$Name = 'Tickpipe exporter'
)

. (Join-Path $PSScriptRoot 'tickpipe.ps1')

Assert-Administrator
if ($Uninstall) {
    Remove-Task $Name
    exit 0
}

if (-not $Db) { $Db = Join-Path $TickpipeData 'ea.db' }
if (-not $KeyFile) { $KeyFile = Join-Path $TickpipeData 'key.txt' }
$Db = Get-FullPath $Db
$KeyFile = Get-FullPath $KeyFile
$program = Find-Tickpipe $Tickpipe
# A task does not see the variables of this window: the key must be in the file.
if (-not (Test-Path -LiteralPath $KeyFile -PathType Leaf)) {
    Stop-WithMessage "$KeyFile does not exist. Cure: write the server's key into its first line, then call the script again."
}

Protect-Data $KeyFile
$action = New-ScriptAction 'run-exporter.ps1' @('-Api', $Api, '-Db', $Db, '-KeyFile', $KeyFile, '-Tickpipe', $program)
# A run that takes longer than the pause goes on; the next waits for its turn.
$settings = New-ScheduledTaskSettingsSet -MultipleInstances IgnoreNew -StartWhenAvailable -AllowStartIfOnBatteries -DontStopIfGoingOnBatteries -ExecutionTimeLimit (New-TimeSpan -Hours 12)
Register-Task $Name $action @(New-EndlessTrigger $Minutes) $settings $RunAs "Sends the ticks of $Db to $Api."
Start-ScheduledTask -TaskName $Name
Write-Output "The task '$Name' runs every $Minutes minutes. What it does is in $(Join-Path $TickpipeData 'exporter.log'); remove it with -Uninstall."
