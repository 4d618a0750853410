<#
.SYNOPSIS
Installs the relay from the kit, or a newer one over it, and starts it with Windows.

.DESCRIPTION
Run it in the kit's folder, as administrator. The program goes to %ProgramFiles%\Tickpipe, which only administrators can write.
A task runs tickpipe.exe as the account LOCAL SERVICE: at boot, and every minute when it does not run. The database, the key and
the log are in %ProgramData%\Tickpipe, which only administrators and that account can read. The server's key is asked for. Last,
a test tick that is stored nowhere is sent to the relay and to the server.

An earlier relay of the same name is replaced; its database is used as it is. In %ProgramFiles%\Tickpipe the same script changes
the settings of what is installed.

.EXAMPLE
.\install.ps1 -Forward https://ticks.example.com
.EXAMPLE
.\install.ps1 -Uninstall
#>
[CmdletBinding(DefaultParameterSetName = 'Install')]
param(
    # URL of the server; without it the relay only stores.
    [Parameter(ParameterSetName = 'Install')][ValidatePattern('^https?://[^\s"]+$')][string]$Forward,
    # A folder for Tickpipe alone, with ea.db, key.txt and relay.log.
    [Parameter(ParameterSetName = 'Install')][string]$Data,
    # Port that EAs post to.
    [Parameter(ParameterSetName = 'Install')][ValidateRange(1, 65535)][int]$Port = 18000,
    # How long confirmed rows are retained, for example 7d.
    [Parameter(ParameterSetName = 'Install')][ValidatePattern('^[0-9a-z.]+$')][string]$Keep,
    # Ask for the server's key, although there is one.
    [Parameter(ParameterSetName = 'Install')][switch]$NewKey,
    # A uv.exe that you trust: it fetches a Python of its own where none is installed for all users.
    [Parameter(ParameterSetName = 'Install')][string]$Uv,
    # Remove the task and end its relay instead; other relays, the program and all data stay.
    [Parameter(Mandatory = $true, ParameterSetName = 'Uninstall')][switch]$Uninstall,
    # Name of the task.
    [string]$Name = 'Tickpipe relay'
)

. (Join-Path $PSScriptRoot 'tickpipe.ps1')

$environment = Join-Path $TickpipeProgram 'env'
$program = Join-Path $environment 'Scripts\tickpipe.exe'

function Find-Python {
    # One of all users: a user's own could be changed by that user, and LOCAL SERVICE cannot read it.
    foreach ($version in '3.13', '3.12', '3.11') {
        $place = "HKLM:\SOFTWARE\Python\PythonCore\$version\InstallPath"
        $found = Get-ItemProperty -LiteralPath $place -Name 'ExecutablePath' -ErrorAction SilentlyContinue
        if ($found -and (Test-Path -LiteralPath $found.ExecutablePath -PathType Leaf)) {
            Assert-OnlyAdministratorsWrite (Split-Path -Parent $found.ExecutablePath)
            Assert-OnlyAdministratorsWrite $found.ExecutablePath
            return $found.ExecutablePath
        }
    }
    Stop-WithMessage 'there is no Python 3.11 to 3.13 for all users. Cure: install one from python.org, Customize installation, "Install Python for all users"; or name a uv.exe with -Uv.'
}

function Invoke-Python {
    # -I: neither this window's folder nor variables of the environment add to what it loads.
    param([string]$Python, [string[]]$Arguments)
    & $Python -I @Arguments | Out-Host
    if ($LASTEXITCODE -ne 0) { Stop-WithMessage 'the program could not be installed; the reason is above. Cure: call the script again; without internet use a kit of "tickpipe kit DIR --wheels".' 1 }
}

function Install-Program {
    param([string]$Wheel)
    $wheels = Split-Path -Parent $Wheel
    $python = Join-Path $environment 'Scripts\python.exe'
    Initialize-Folder $TickpipeProgram
    if (-not (Test-Path -LiteralPath $python -PathType Leaf)) {
        if ($Uv) {
            $env:UV_PYTHON_INSTALL_DIR = Join-Path $TickpipeProgram 'python'
            & (Get-FullPath $Uv) venv --quiet --no-config --managed-python --seed --python 3.13 $environment | Out-Host
            if ($LASTEXITCODE -ne 0) { Stop-WithMessage 'uv could not make the environment; the reason is above.' 1 }
        } else {
            Invoke-Python (Find-Python) @('-m', 'venv', $environment)
        }
    }
    $pip = @('-m', 'pip', 'install', '--quiet', '--isolated', '--disable-pip-version-check', '--only-binary=:all:')
    $source = @()
    if (@(Get-ChildItem -LiteralPath $wheels -Filter '*.whl').Count -gt 1) { $source = @('--no-index', '--find-links', $wheels) }
    # All is downloaded, and every hash compared, before anything is replaced.
    Invoke-Python $python ($pip + $source + @('--require-hashes', '--requirement', (Join-Path $PSScriptRoot 'requirements.txt')))
    Invoke-Python $python ($pip + @('--no-index', '--no-deps', '--force-reinstall', $Wheel))
    foreach ($item in @(Get-ChildItem -LiteralPath $PSScriptRoot -Filter '*.ps1') + @(Get-ChildItem -LiteralPath $PSScriptRoot -Filter 'README.txt')) {
        Copy-Item -LiteralPath $item.FullName -Destination $TickpipeProgram -Force
    }
    Copy-Item -LiteralPath (Join-Path $PSScriptRoot 'DataCollectorPRO') -Destination $TickpipeProgram -Recurse -Force
}

function Update-Program {
    # Every task of this program ends for the minute that it takes: files that run cannot be replaced.
    $kit = @(Get-ChildItem -Path (Join-Path $PSScriptRoot 'wheels') -Filter 'tickpipe-*.whl' -ErrorAction SilentlyContinue)
    if ($kit.Count -ne 1) {
        if ($kit.Count -eq 0 -and (Find-Tickpipe) -eq $program) { return }
        Stop-WithMessage "there must be one tickpipe-*.whl in $(Join-Path $PSScriptRoot 'wheels'). Cure: extract the kit into an empty folder."
    }
    $suspended = @(Get-ScheduledTask | Where-Object { $_.State -ne 'Disabled' -and ($_.TaskName -eq $Name -or $_.Actions.Execute -contains $program) })
    try {
        foreach ($task in $suspended) { Suspend-Task $task }
        Install-Program $kit[0].FullName
    } finally {
        # Also when it failed: what was there goes on.
        foreach ($task in $suspended) { Resume-Task $task }
    }
}

function Wait-Relay {
    $health = "http://127.0.0.1:$Port/health"
    for ($try = 0; $try -lt 60; $try++) {
        Start-Sleep -Seconds 1
        try {
            Invoke-WebRequest -Uri $health -UseBasicParsing -TimeoutSec 2 | Out-Null
            return
        } catch {
            continue
        }
    }
    Stop-WithMessage "the task '$Name' is there, but the relay does not answer on $health. Cure: the reason is at the end of $log; has another program the port?" 1
}

Assert-Administrator
if ($Uninstall) {
    Remove-Task $Name
    exit 0
}

if (-not $Data) { $Data = $TickpipeData }
$Data = Get-FullPath $Data
$log = Join-Path $Data 'relay.log'
$keyFile = Join-Path $Data 'key.txt'
Assert-OwnFolder $Data
Update-Program

$arguments = @('relay', 'serve', '--db', (Join-Path $Data 'ea.db'), '--port', "$Port", '--log-file', $log)
if ($Keep) { $arguments += @('--keep', $Keep) }
if ($Forward) { $arguments += @('--forward', $Forward, '--key-file', $keyFile) }
# A relay of this name has other settings perhaps, and holds the port.
$before = Get-ScheduledTask -TaskName $Name -ErrorAction SilentlyContinue
$isRegistered = $false
try {
    if ($before) { Suspend-Task $before }
    Protect-Folder $Data $ServiceSid
    if ($Forward) { Request-Key $keyFile $NewKey.IsPresent $ServiceSid }
    $triggers = @((New-ScheduledTaskTrigger -AtStartup), (New-EndlessTrigger 1))
    $principal = New-ScheduledTaskPrincipal -UserId $ServiceSid -LogonType ServiceAccount -RunLevel Limited
    Register-Task $Name (New-ProgramAction $program $arguments) $triggers $principal ([TimeSpan]::Zero) "Takes ticks on port $Port and stores them in $Data."
    $isRegistered = $true
} finally {
    if ($before -and -not $isRegistered) { Resume-Task $before }
}
Start-ScheduledTask -TaskName $Name
Wait-Relay

Write-Output "The relay runs on port $Port; http://127.0.0.1:$Port shows how it stands. Its log is $log; remove it with -Uninstall."
if ($Forward) {
    & $program relay check --to $Forward --key-file $keyFile --relay "http://127.0.0.1:$Port"
    if ($LASTEXITCODE -ne 0) {
        Stop-WithMessage 'the relay is installed, and stores ticks, but they would not arrive: see WRONG above. Cure: mend that, or call the script again with -NewKey.' 1
    }
}
exit 0
