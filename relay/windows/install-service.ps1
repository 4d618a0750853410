<#
.SYNOPSIS
Starts the relay with Windows, keeps it running, also while nobody is logged on.

.DESCRIPTION
A scheduled task: started at boot, again within a minute when it ends with an error, and looked after every five minutes.
Needs administrator rights once. No password is stored. Put the server's key into the first line of the key file before
(%ProgramData%\Tickpipe\key.txt when nothing else is said). Installing again replaces the task.

.EXAMPLE
.\install-service.ps1 -Forward https://ticks.example.com
.EXAMPLE
.\install-service.ps1 -Uninstall
#>
[CmdletBinding(DefaultParameterSetName = 'Install')]
param(
    # URL of the server; without it the relay only stores.
    [Parameter(ParameterSetName = 'Install')][string]$Forward,
    # The database of ticks; created when missing.
    [Parameter(ParameterSetName = 'Install')][string]$Db,
    # Port that EAs post to.
    [Parameter(ParameterSetName = 'Install')][ValidateRange(1, 65535)][int]$Port = 18000,
    # How long confirmed rows are retained, for example 7d.
    [Parameter(ParameterSetName = 'Install')][string]$Keep,
    # A file with the server's key in its first line.
    [Parameter(ParameterSetName = 'Install')][string]$KeyFile,
    # tickpipe.exe, when it is not found by itself.
    [Parameter(ParameterSetName = 'Install')][string]$Tickpipe,
    # User: you, without a stored password. System: for accounts that do not allow that.
    [Parameter(ParameterSetName = 'Install')][ValidateSet('User', 'System')][string]$RunAs = 'User',
    # Remove the task and end the relay instead.
    [Parameter(Mandatory = $true, ParameterSetName = 'Uninstall')][switch]$Uninstall,
    # Name of the task.
    [string]$Name = 'Tickpipe relay'
)

. (Join-Path $PSScriptRoot 'tickpipe.ps1')

# The task's end may leave the program that its script started.
function Stop-Relay {
    Get-CimInstance -ClassName Win32_Process -Filter "Name = 'tickpipe.exe' OR Name = 'python.exe'" |
        Where-Object { $_.CommandLine -match 'tickpipe' -and $_.CommandLine -match '\brelay"?\s+"?serve\b' } |
        ForEach-Object { Stop-Process -Id $_.ProcessId -Force -ErrorAction SilentlyContinue }
}

Assert-Administrator
if ($Uninstall) {
    Remove-Task $Name
    Stop-Relay
    exit 0
}

if (-not $Db) { $Db = Join-Path $TickpipeData 'ea.db' }
if (-not $KeyFile) { $KeyFile = Join-Path $TickpipeData 'key.txt' }
$Db = Get-FullPath $Db
$KeyFile = Get-FullPath $KeyFile
$program = Find-Tickpipe $Tickpipe
Initialize-Folder (Split-Path -Parent $Db)
$arguments = @('-Db', $Db, '-Port', "$Port", '-KeyFile', $KeyFile, '-Tickpipe', $program)
if ($Keep) { $arguments += @('-Keep', $Keep) }
if ($Forward) {
    # A task does not see the variables of this window: the key must be in the file.
    if (-not (Test-Path -LiteralPath $KeyFile -PathType Leaf)) {
        Stop-WithMessage "$KeyFile does not exist. Cure: write the server's key into its first line, then call the script again."
    }
    $arguments += @('-Forward', $Forward)
}

# One that runs already, with other settings perhaps, would keep the port.
Stop-ScheduledTask -TaskName $Name -ErrorAction SilentlyContinue
Stop-Relay
Protect-Data $KeyFile
$action = New-ScriptAction 'run-relay.ps1' $arguments
$settings = New-ScheduledTaskSettingsSet -MultipleInstances IgnoreNew -StartWhenAvailable -AllowStartIfOnBatteries -DontStopIfGoingOnBatteries -ExecutionTimeLimit ([TimeSpan]::Zero) -RestartCount 999 -RestartInterval (New-TimeSpan -Minutes 1)
# While it runs the second trigger does nothing; without it a relay that somebody ended would stay away until the next boot.
$triggers = @((New-ScheduledTaskTrigger -AtStartup), (New-EndlessTrigger 5))
Register-Task $Name $action $triggers $settings $RunAs "Takes ticks on port $Port and stores them in $Db."
Start-ScheduledTask -TaskName $Name

$health = "http://127.0.0.1:$Port/health"
for ($try = 0; $try -lt 30; $try++) {
    Start-Sleep -Seconds 1
    try {
        Invoke-WebRequest -Uri $health -UseBasicParsing -TimeoutSec 2 | Out-Null
        Write-Output "The relay runs on port $Port and starts with Windows. What it does is in $(Join-Path $TickpipeData 'relay.log'); remove it with -Uninstall."
        exit 0
    } catch {
        continue
    }
}
Stop-WithMessage "the task '$Name' is there, but the relay does not answer on $health. Cure: the reason is at the end of $(Join-Path $TickpipeData 'relay.log'); is the port taken?" 1
